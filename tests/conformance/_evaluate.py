"""What the cells are made of: outputs, gradients, and how close is close."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab import OpInfo, SampleInput
from gradlab._opinfo import make_tensors

Grads = tuple[Tensor | None, ...]


def samples(opinfo: OpInfo, dtype: torch.dtype = torch.float64) -> list[SampleInput]:
    return list(opinfo.sample_inputs(make_tensors(dtype)))


def cast(sample: SampleInput, dtype: torch.dtype) -> SampleInput:
    """The same sample with its floating point tensors in another dtype, new leaves."""

    def convert(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaf = value.detach().to(dtype).clone(memory_format=torch.preserve_format)
            return leaf.requires_grad_(value.requires_grad)
        return value

    args = [convert(value) for value in sample.args]
    kwargs = {key: convert(value) for key, value in sample.kwargs.items()}
    return SampleInput(sample.name, *args, **kwargs)


def cotangents(outputs: Sequence[Tensor], seed: int = 1) -> list[Tensor]:
    """Fixed numbers of both signs; no random draw, which `vmap` would refuse."""
    return [
        torch.arange(y.numel(), dtype=torch.float64, device=y.device)
        .add(seed)
        .mul(seed + 1.7)
        .sin()
        .reshape(y.shape)
        .to(y.dtype)
        for y in outputs
    ]


def scalar(bound: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """Σ ⟨y, v⟩ with fixed cotangents v: one number whose gradient is the VJP at v."""

    def loss(*tensors: Tensor) -> Tensor:
        outputs = bound(*tensors)
        pairs = zip(outputs, cotangents(outputs), strict=True)
        # A number is left as it is: times another, torch.func fails on no inputs.
        terms = [(y * v).sum() if y.ndim else y for y, v in pairs]
        return functools.reduce(torch.add, terms)

    return loss


def evaluate(
    op: Callable[..., Any], sample: SampleInput, **options: Any
) -> tuple[tuple[Tensor, ...], Grads]:
    """Outputs, and gradients for fixed random cotangents."""
    outputs = sample.bind(op)(*sample.tensors)
    grads = torch.autograd.grad(
        outputs, sample.tensors, cotangents(outputs), allow_unused=True, **options
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
        assert actual.shape == expected.shape, f"{what}: {actual.shape}"
        assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}"
        if not expected.dtype.is_floating_point:
            assert torch.equal(actual, expected), what
            return
        scale = max(1.0, largest(expected))
        atol = 2**8 * torch.finfo(expected.dtype).eps * scale
        torch.testing.assert_close(
            actual, expected, rtol=0, atol=atol, msg=lambda text: f"{what}: {text}"
        )


def largest(x: Tensor) -> float:
    return x.detach().abs().max().item() if x.numel() else 0.0


DRAWS = 16


def accuracy(
    opinfo: OpInfo,
    sample: SampleInput,
    dtype: torch.dtype,
    run: Callable[[Callable[..., Any], SampleInput], list[Any]],
    torch_run: Callable[[Callable[..., Any], SampleInput], list[Any]] | None = None,
) -> None:
    """Error at most twice torch's own, against a float64 oracle on the same numbers.

    The error of a tensor is its worst entry's, root mean square over several draws of
    the sample, since one draw of five numbers is a lottery. A result that is the
    oracle's, correctly rounded, is always accurate enough.
    """
    squares: dict[int, list[Tensor]] = {}
    for seed in range(DRAWS):
        draw = {s.name: s for s in opinfo.sample_inputs(make_tensors(dtype, seed=seed))}
        low = draw[sample.name]
        exact = run(opinfo.reference, cast(low, torch.float64))
        torchs = (torch_run or run)(opinfo.torch_op, low)
        ours = run(opinfo.op, low)
        for i, (a, b, e) in enumerate(zip(ours, torchs, exact, strict=True)):
            if a is None or b is None or e is None:
                assert not any(x is not None and x.any() for x in (a, b, e))
                continue
            assert a.dtype == b.dtype, f"{i}: {a.dtype}, torch has {b.dtype}"
            rounding = torch.finfo(b.dtype).eps / 2 * largest(e)
            errors = largest(a.double() - e), largest(b.double() - e), rounding
            squares.setdefault(i, []).append(torch.tensor(errors).square())
    for i, rows in squares.items():
        ours_, torchs_, rounding_ = torch.stack(rows).mean(0).sqrt().tolist()
        assert ours_ <= max(2 * torchs_, rounding_), (
            f"output, then gradient {i}: error {ours_:.3g}, torch's {torchs_:.3g}, "
            f"one rounding {rounding_:.3g}"
        )


def both(op: Callable[..., Any], sample: SampleInput, **options: Any) -> list[Any]:
    outputs, grads = evaluate(op, sample, **options)
    return [*outputs, *grads]
