"""What holds of every op and every Module: it stands in for torch's own."""

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab import ModuleInput, OpInfo, SampleInput

Grads = tuple[Tensor | None, ...]


def cotangents(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Fixed numbers of both signs."""
    return [
        torch.arange(1, y.numel() + 1, dtype=torch.float64, device=y.device)
        .mul(2.7)
        .sin()
        .reshape(y.shape)
        .to(y.dtype)
        for y in outputs
    ]


def evaluate(
    op: Callable[..., Any], sample: SampleInput
) -> tuple[tuple[Tensor, ...], Grads]:
    """Outputs, and gradients for fixed cotangents."""
    outputs = sample.bind(op)(*sample.tensors)
    grads = torch.autograd.grad(
        outputs, sample.tensors, cotangents(outputs), allow_unused=True
    )
    return outputs, grads


def assert_close(actual: Any, expected: Any, what: str) -> None:
    """Equal to 2⁸ units of rounding of the tensor's own largest entry (or of 1)."""
    if isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected), f"{what}: {len(actual)} tensors"
        for i, pair in enumerate(zip(actual, expected, strict=True)):
            assert_close(*pair, f"{what} {i}")
    elif expected is None or actual is None:
        rest = expected if actual is None else actual
        assert rest is None or not rest.any(), f"{what}: None against a gradient"
    else:
        exact = not expected.dtype.is_floating_point
        entries = expected.detach().nan_to_num(0.0, 0.0, 0.0).abs()
        scale = max(1.0, entries.max().item() if entries.numel() else 0.0)
        atol = 0.0 if exact else 2**8 * torch.finfo(expected.dtype).eps * scale
        torch.testing.assert_close(
            *(actual, expected),
            rtol=0,
            atol=atol,
            equal_nan=True,
            msg=lambda text: f"{what}: {text}",
        )


def drop_in_op(opinfo: OpInfo, sample: SampleInput) -> None:
    """Outputs and gradients as torch's: values to rounding, shape, dtype, NaN."""
    expected = evaluate(opinfo.torch_op, sample)
    assert_close(evaluate(opinfo.op, sample), expected, "output, gradient")


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
