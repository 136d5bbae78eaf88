"""Softmax: scores to probabilities along one axis (Bridle 1990).

Forward     yᵢ = exp(xᵢ) / Σⱼ exp(xⱼ)  x, y (*), i and j along `dim`
Locally     ∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ − yⱼ)
Backward    x̄ⱼ = Σᵢ ȳᵢ yᵢ (δᵢⱼ − yⱼ) = yⱼ (ȳⱼ − Σᵢ ȳᵢ yᵢ)
            so that Σⱼ x̄ⱼ = 0: adding a constant to all scores changes nothing
Forward mode  ẏᵢ = yᵢ (ẋᵢ − Σⱼ yⱼ ẋⱼ): the Jacobian is symmetric
Saved       y.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments

aten = torch.ops.aten


def softmax_reference(
    input: Shaped[Tensor, "*shape"],
    dim: int,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "*shape"]:
    """The equation in torch ops: yᵢ = exp(xᵢ) / Σⱼ exp(xⱼ)."""
    x = input if dtype is None else input.to(dtype)
    if not x.numel():
        return x.exp()
    z = torch.exp(x - x.amax(dim, keepdim=True).detach())
    return z / z.sum(dim, keepdim=True)


class SoftmaxFunction(Function):
    """Softmax along `dim` with its backward pass; `softmax` is the public entry."""

    autocast = {"cuda": "float32"}

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.softmax(x, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, ctx.dim = inputs
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        # x̄ⱼ = yⱼ (ȳⱼ − Σᵢ ȳᵢ yᵢ)
        return y * (grad_y - (grad_y * y).sum(ctx.dim, keepdim=True)), None

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return aten._softmax_backward_data(grad_y, y, ctx.dim, y.dtype), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> Tensor:
        (y,) = ctx.saved_tensors
        return y * (dx - (y * dx).sum(ctx.dim, keepdim=True))


def softmax(
    input: Shaped[Tensor, "*shape"],
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "*shape"]:
    """Computes the softmax along one axis with an explicit backward pass.

    Args:
        input: x, of any shape.
        dim: The axis that sums to one. None, which torch deprecates, is axis 0 of a
            tensor with 0, 1 or 3 axes, and axis 1 of any other.
        _stacklevel: Of the warning for `dim=None`, as in torch.
        dtype: Cast x to it first.

    Returns:
        y, of the shape of x.

    Raises:
        TypeError: When x is not a tensor.
        IndexError: When x has no axis `dim`.

    Example:
        >>> x = torch.zeros(2, requires_grad=True)
        >>> softmax(x, dim=0)[0].backward()
        >>> x.grad
        tensor([ 0.2500, -0.2500])
    """
    arguments.tensors("softmax", input=input)
    x = input if dtype is None else input.to(dtype)
    return SoftmaxFunction.call(x, axis("softmax", x, dim, _stacklevel))


def axis(name: str, x: Tensor, dim: int | None, stacklevel: int = 3) -> int:
    """Resolves and validates the axis of a softmax.

    Args:
        name: The op, for the messages.
        x: The input.
        dim: The axis; None for torch's implicit choice, with a warning.
        stacklevel: Of that warning.

    Returns:
        The axis.

    Raises:
        IndexError: When x has no axis `dim`.
    """
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        text = f"{name}: dim=None is deprecated; say dim={dim}, which is used now"
        warnings.warn(text, stacklevel=stacklevel)
    rank = max(x.ndim, 1)
    if not -rank <= dim < rank:
        raise IndexError(
            f"{name}: dim must be in [{-rank}, {rank - 1}] for an input of shape "
            f"{tuple(x.shape)}, got {dim}"
        )
    return dim


class Softmax(torch.nn.Softmax):
    """`torch.nn.Softmax` with the explicit backward pass of `softmax`.

    Example:
        >>> Softmax(dim=-1)(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]])
    """

    def forward(self, input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Computes the softmax along `dim`."""
        return softmax(input, self.dim, _stacklevel=5)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every rank and axis, one class, no rows, scores that overflow a naive exp."""
    yield SampleInput("scalar", make(), 0)
    yield SampleInput("1d", make(7), 0)
    yield SampleInput("last", make(3, 5), -1)
    yield SampleInput("middle", make(2, 3, 4), 1)
    yield SampleInput("one_class", make(4, 1), 1)
    yield SampleInput("empty", make(0, 3), 1)
    yield SampleInput("large", make(3, 5, scale=1e3), 1)


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Along the last and the first axis."""
    yield ModuleInput(Softmax, dim=-1).on(make(5, 3))
    yield ModuleInput(Softmax, 0).on(make(5, 3))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """64 KiB, 4 MiB and 64 MiB of float32, rows of 1,024 classes."""
    for rows in (16, 1024, 16384):
        yield SampleInput(f"{rows}x1024", make(rows, 1024), -1)


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """An axis that is not there."""
    sample = SampleInput("dim", make(3, 4), 2)
    yield ErrorInput(sample, IndexError, "must be in .*got 2")


opinfo = OpInfo(
    softmax,
    softmax_reference,
    torch.nn.functional.softmax,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
