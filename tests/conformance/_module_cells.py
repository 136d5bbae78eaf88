"""What holds of every Module: it stands in for the one of torch.nn."""

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab import ModuleInput

from ._evaluate import assert_close, cotangents


def _twins(given: ModuleInput) -> tuple[torch.nn.Module, torch.nn.Module]:
    modules = []
    for cls in (given.cls, given.torch_cls):
        torch.manual_seed(0)
        modules.append(given.build(cls).double())
    return modules[0], modules[1]


def _run(module: torch.nn.Module, inputs: Sequence[Any]) -> list[Tensor]:
    """Outputs and gradients, with respect to inputs and parameters."""
    output = module(*inputs)
    outputs = list(output) if isinstance(output, tuple) else [output]
    real = [y for y in outputs if y.is_floating_point()]
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    leaves += list(module.parameters())
    return [*outputs, *torch.autograd.grad(real, leaves, cotangents(real))]


def drop_in_module(given: ModuleInput) -> None:
    ours, torchs = _twins(given)
    assert isinstance(ours, given.torch_cls)
    assert str(ours) == str(torchs)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    for a, b in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(a, b), "initialisation differs"
    expected = _run(torchs, given.inputs)
    assert_close(_run(ours, given.inputs), expected, "output, gradient")
    with torch.no_grad():
        for parameter in torchs.parameters():
            parameter.add_(0.5)
    ours.load_state_dict(torchs.state_dict())
    expected = _run(torchs, given.inputs)
    assert_close(_run(ours, given.inputs), expected, "after load_state_dict")
    torchs.load_state_dict(ours.state_dict())


def deepcopy_and_pickle(given: ModuleInput) -> None:
    ours, _ = _twins(given)
    expected = _run(ours, given.inputs)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    clones = (
        copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)),
        torch.load(file, weights_only=False),
    )
    for clone in clones:
        assert type(clone) is given.cls
        assert_close(_run(clone, given.inputs), expected, "clone")


MODULE_CELLS: dict[str, Callable[[ModuleInput], None]] = {
    cell.__name__: cell for cell in (drop_in_module, deepcopy_and_pickle)
}
