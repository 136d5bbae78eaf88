"""Tanh: the sigmoid around zero (LeCun et al. 1998, "Efficient BackProp").

Forward     y = tanh(x)                x, y (*)
Locally     ∂y/∂x = 1 − y², which is 1 at 0 and vanishes where |x| is large
Backward    x̄ = ȳ · (1 − y²)
Forward mode  ẏ = ẋ · (1 − y²)
Saved       y. Complex values conjugate what they saved.
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


def tanh_reference(input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The equation in torch ops: y = 1 − 2 / (exp(2x) + 1)."""
    return 1 - 2 / (torch.exp(2 * input) + 1)


class TanhFunction(Function):
    """y = tanh(x) with its backward pass; `tanh` is the public entry."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        # x̄ = ȳ · (1 − y²)
        return grad_y * (1 - y * y).conj()

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return aten.tanh_backward(grad_y, y)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return dx * (1 - y * y)


def tanh(input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Computes y = tanh(x) with an explicit backward pass.

    Args:
        input: x, of any shape.

    Returns:
        y, of the shape of x; of the default dtype when x holds integers.

    Raises:
        TypeError: When x is not a tensor.

    Example:
        >>> x = torch.tensor([0.0], requires_grad=True)
        >>> tanh(x).backward()
        >>> x.grad
        tensor([1.])
    """
    arguments.tensors("tanh", input=input)
    return TanhFunction.call(input)


class Tanh(torch.nn.Tanh):
    """`torch.nn.Tanh` with the explicit backward pass of `tanh`.

    Example:
        >>> Tanh()(torch.zeros(2))
        tensor([0., 0.])
    """

    def forward(self, input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Computes y = tanh(x)."""
        return tanh(input)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every rank, and values deep in both saturated ends."""
    yield SampleInput("scalar", make())
    yield SampleInput("1d", make(7))
    yield SampleInput("4d", make(2, 3, 1, 5))
    yield SampleInput("empty", make(0, 3))
    yield SampleInput("saturated", make(5, scale=50.0))


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """The one there is."""
    yield ModuleInput(Tanh).on(make(5, 3))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """64 KiB, 4 MiB and 64 MiB of float32."""
    for rows in (16, 1024, 16384):
        yield SampleInput(f"{rows}x1024", make(rows, 1024))


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """A Python number."""
    yield ErrorInput(
        SampleInput("number", 1.0), TypeError, "must be a torch.Tensor, got float"
    )


opinfo = OpInfo(
    tanh,
    tanh_reference,
    torch.tanh,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
