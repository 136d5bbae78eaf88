"""Every op at every sample in every cell; Modules and errors against torch's own.

Nothing here names an op: a new one is found through its `opinfo`.
"""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from gradlab import ErrorInput, ModuleInput, OpInfo, SampleInput, layers
from gradlab._opinfo import make_tensors
from tests.conformance import (
    CELLS,
    assert_close,
    cotangents,
    failure,
    matrix,
    samples,
    torch_fails_too,
)

OPS = pytest.mark.parametrize("opinfo", layers.opinfos, ids=lambda opinfo: opinfo.name)


PLACES = [
    pytest.param(*place, id=f"{place[0].name}-{place[1].name}-{place[2]}")
    for place in matrix(layers.opinfos)
]


@pytest.mark.parametrize(("opinfo", "sample", "cell"), PLACES)
def test_cell(opinfo: OpInfo, sample: SampleInput, cell: str) -> None:
    if f"{cell}/{sample.name}" in opinfo.known_failures:
        assert failure(opinfo, sample, cell) is not None, "it holds now: say so"
        assert torch_fails_too(opinfo, sample, cell), "torch's own op passes"
    else:
        CELLS[cell](opinfo, sample)


@OPS
def test_samples_have_an_empty_batch_and_unique_names(opinfo: OpInfo) -> None:
    all_samples = samples(opinfo)
    assert any(not sample.args[0].numel() for sample in all_samples)
    assert len({sample.name for sample in all_samples}) == len(all_samples)
    known = {key.split("/")[1] for key in opinfo.known_failures}
    assert known <= {sample.name for sample in all_samples}


def modules() -> list[ModuleInput]:
    make = make_tensors(torch.float64)
    return [module for info in layers.opinfos for module in info.module_inputs(make)]


def run(module: torch.nn.Module, inputs: tuple[object, ...]) -> list[torch.Tensor]:
    output = module(*inputs)
    outputs = list(output) if isinstance(output, tuple) else [output]
    real = [y for y in outputs if y.is_floating_point()]
    leaves = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    leaves += list(module.parameters())
    return [*outputs, *torch.autograd.grad(real, leaves, cotangents(real))]


@pytest.mark.parametrize("given", modules(), ids=lambda given: given.cls.__name__)
def test_module_stands_in_for_torchs(given: ModuleInput, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = given.build().double()
    torch.manual_seed(0)
    torchs = given.build(given.torch_cls).double()
    assert isinstance(ours, given.torch_cls)
    assert str(ours) == str(torchs)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    for a, b in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(a, b), "initialisation differs"
    expected = run(torchs, given.inputs)
    assert_close(run(ours, given.inputs), expected, "output, gradient")

    with torch.no_grad():
        for parameter in torchs.parameters():
            parameter.add_(0.5)
    ours.load_state_dict(torchs.state_dict())
    expected = run(torchs, given.inputs)
    assert_close(run(ours, given.inputs), expected, "after load_state_dict")
    torchs.load_state_dict(ours.state_dict())

    for clone in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(clone) is given.cls
        assert_close(run(clone, given.inputs), expected, "clone")
    torch.save(ours, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    assert_close(run(loaded, given.inputs), expected, "torch.save")


ERRORS = [
    pytest.param(opinfo, given, id=f"{opinfo.name}-{given.sample.name}")
    for opinfo in layers.opinfos
    for given in opinfo.error_inputs(make_tensors(torch.float64))
]


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
@pytest.mark.parametrize(("opinfo", "given"), ERRORS)
def test_error_is_of_torchs_type_with_a_message(
    opinfo: OpInfo, given: ErrorInput
) -> None:
    sample = given.sample
    with pytest.raises(given.error, match=given.match) as caught:
        opinfo.op(*sample.args, **sample.kwargs)
    assert type(caught.value) is given.error
    with pytest.raises(given.error):
        opinfo.torch_op(*sample.args, **sample.kwargs)


def test_every_file_of_the_folder_is_exported_and_has_its_test() -> None:
    folder = Path(layers.__file__).parent
    stems = {path.stem.removeprefix("_") for path in folder.glob("_[a-z]*.py")}
    ops = {opinfo.name for opinfo in layers.opinfos}
    assert stems - ops == {"reduction"}
    tests = Path(__file__).parent / "layers"
    for name in ops:
        assert hasattr(layers, name)
        assert (tests / f"test_{name}.py").exists(), f"tests/layers/test_{name}.py"
