"""ReLU: the rectifier (Nair & Hinton 2010; He et al. 2015 for its initialisation).

Forward     y = max(x, 0)              x, y (*)
Locally     ∂y/∂x = 1 where x > 0, 0 where x < 0; at 0 the subgradient 0, as torch takes
Backward    x̄ = ȳ · 1[y > 0]           a gate: what passes is passed unchanged
Forward mode  ẏ = ẋ · 1[y > 0]
Saved       y, which the next layer keeps anyway; the derivative needs no x.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments

aten = torch.ops.aten


def relu_reference(
    input: Shaped[Tensor, "*shape"], inplace: bool = False
) -> Shaped[Tensor, "*shape"]:
    """The equation in torch ops: y = max(x, 0), never in place."""
    return input.clamp(min=0) if input.numel() else input.clone()


class ReLUFunction(Function):
    """y = max(x, 0) with its backward pass; `relu` is the public entry."""

    @staticmethod
    def forward(x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            x.relu_()
            return x
        return x.relu()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, inplace = inputs
        if inplace:
            ctx.mark_dirty(x)
        ctx.inplace = inplace
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        # x̄ = ȳ · 1[y > 0], selected and not multiplied: a closed gate stops inf and NaN
        return torch.where(y <= 0, 0, grad_y), None

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return aten.threshold_backward(grad_y, y, 0), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> Tensor:
        (y,) = ctx.saved_tensors
        # In place, the tangent must be overwritten like its value was.
        return dx.masked_fill_(y <= 0, 0) if ctx.inplace else dx.masked_fill(y <= 0, 0)


def relu(
    input: Shaped[Tensor, "*shape"], inplace: bool = False
) -> Shaped[Tensor, "*shape"]:
    """Computes y = max(x, 0) with an explicit backward pass.

    Args:
        input: x, of any shape.
        inplace: Overwrite x with y. x must not be a leaf that requires gradients.

    Returns:
        y, of the shape of x.

    Raises:
        TypeError: When x is not a tensor.
        RuntimeError: When x is complex, or is a leaf to be overwritten.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
        >>> relu(x).sum().backward()
        >>> x.grad
        tensor([0., 0., 1.])
    """
    arguments.tensors("relu", input=input)
    if input.is_complex():
        raise RuntimeError(
            f"relu: input must be real, got {input.dtype}: complex numbers have no "
            "order. Apply it to input.real and input.imag"
        )
    return ReLUFunction.call(input, inplace)


class ReLU(torch.nn.ReLU):
    """`torch.nn.ReLU` with the explicit backward pass of `relu`.

    Example:
        >>> ReLU()(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """

    def forward(self, input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Computes y = max(x, 0)."""
        return relu(input, self.inplace)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every rank, and large and tiny values; ties at 0 are in the op's own test."""
    yield SampleInput("scalar", make())
    yield SampleInput("1d", make(7))
    yield SampleInput("4d", make(2, 3, 1, 5))
    yield SampleInput("empty", make(0, 3))
    yield SampleInput("large", make(5, scale=1e3))


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Out of place; in place has its own test."""
    yield ModuleInput(ReLU).on(make(5, 3))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """64 KiB, 4 MiB and 64 MiB of float32."""
    for rows in (16, 1024, 16384):
        yield SampleInput(f"{rows}x1024", make(rows, 1024))


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """A complex input, a list."""
    sample = SampleInput("list", [1.0])
    yield ErrorInput(sample, TypeError, "input must be a torch.Tensor, got list")
    x = make(3).to(torch.complex128)
    yield ErrorInput(SampleInput("complex", x), RuntimeError, "must be real")


opinfo = OpInfo(
    relu,
    relu_reference,
    torch.nn.functional.relu,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
