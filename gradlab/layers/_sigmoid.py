"""Sigmoid: the logistic function, the classic cause of vanishing gradients.

Forward     y = 1 / (1 + exp(−x))      x, y (*)
Locally     ∂y/∂x = y (1 − y), at most 1/4: a layer of sigmoids shrinks the gradient by
            four or more wherever its weights do not make up for it (Hochreiter 1991)
Backward    x̄ = ȳ · y (1 − y)
Forward mode  ẏ = ẋ · y (1 − y)
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


def sigmoid_reference(input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The equation in torch ops: y = 1 / (1 + exp(−x))."""
    return 1 / (1 + torch.exp(-input))


class SigmoidFunction(Function):
    """y = 1 / (1 + exp(−x)) with its backward pass; `sigmoid` is the public entry."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        # x̄ = ȳ · y (1 − y)
        return grad_y * (y * (1 - y)).conj()

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return aten.sigmoid_backward(grad_y, y)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return dx * y * (1 - y)


def sigmoid(input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Computes y = 1 / (1 + exp(−x)) with an explicit backward pass.

    Args:
        input: x, of any shape.

    Returns:
        y, of the shape of x; of the default dtype when x holds integers.

    Raises:
        TypeError: When x is not a tensor.

    Example:
        >>> x = torch.tensor([0.0], requires_grad=True)
        >>> sigmoid(x).backward()
        >>> x.grad
        tensor([0.2500])
    """
    arguments.tensors("sigmoid", input=input)
    return SigmoidFunction.call(input)


class Sigmoid(torch.nn.Sigmoid):
    """`torch.nn.Sigmoid` with the explicit backward pass of `sigmoid`.

    Example:
        >>> Sigmoid()(torch.zeros(2))
        tensor([0.5000, 0.5000])
    """

    def forward(self, input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Computes y = 1 / (1 + exp(−x))."""
        return sigmoid(input)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every rank, and values deep in both saturated ends."""
    yield SampleInput("scalar", make())
    yield SampleInput("1d", make(7))
    yield SampleInput("4d", make(2, 3, 1, 5))
    yield SampleInput("empty", make(0, 3))
    yield SampleInput("saturated", make(5, scale=50.0))


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """The one there is."""
    yield ModuleInput(Sigmoid).on(make(5, 3))


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
    sigmoid,
    sigmoid_reference,
    torch.sigmoid,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
