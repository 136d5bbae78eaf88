"""Every op at every sample through every check; Modules and errors against torch's own.

Nothing here names an op: a new one is found through its `opinfo`.
"""

from pathlib import Path

import pytest
import torch

from gradlab import ErrorInput, ModuleInput, OpInfo, SampleInput, layers
from gradlab._opinfo import make_tensors
from gradlab.subject import NotChecked
from tests.conformance import (
    CELLS,
    MODULE_CELLS,
    matrix,
    outcome,
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
        assert outcome(opinfo, sample, cell).state == "fails", "it holds now: say so"
        assert torch_fails_too(opinfo, sample, cell), "torch's own op passes"
        return
    try:
        CELLS[cell](opinfo, sample)
    except NotChecked as reason:
        pytest.skip(str(reason))


@OPS
def test_samples_have_an_empty_batch_and_unique_names(opinfo: OpInfo) -> None:
    all_samples = samples(opinfo)
    assert any(not sample.args[0].numel() for sample in all_samples)
    assert len({sample.name for sample in all_samples}) == len(all_samples)
    known = {key.split("/")[1] for key in opinfo.known_failures}
    assert known <= {sample.name for sample in all_samples}


MODULES = [
    pytest.param(given, cell, id=f"{given.cls.__name__}-{number}-{cell}")
    for opinfo in layers.opinfos
    for number, given in enumerate(opinfo.module_inputs(make_tensors(torch.float64)))
    for cell in MODULE_CELLS
]


@pytest.mark.parametrize(("given", "cell"), MODULES)
def test_module(given: ModuleInput, cell: str) -> None:
    MODULE_CELLS[cell](given)


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
    assert stems - ops == {"arguments", "reduction"}
    tests = Path(__file__).parent / "layers"
    for name in ops:
        assert hasattr(layers, name)
        assert (tests / f"test_{name}.py").exists(), f"tests/layers/test_{name}.py"
