"""LogSoftmax: log-probabilities along one axis, without ever forming the probabilities.

Forward     yᵢ = xᵢ − log Σⱼ exp(xⱼ)   x, y (*), i and j along `dim`
Locally     ∂yᵢ/∂xⱼ = δᵢⱼ − pⱼ, with p = exp(y) the softmax of x
Backward    x̄ⱼ = Σᵢ ȳᵢ (δᵢⱼ − pⱼ) = ȳⱼ − pⱼ Σᵢ ȳᵢ
Forward mode  ẏᵢ = ẋᵢ − Σⱼ pⱼ ẋⱼ
Saved       y.
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
from ._softmax import axis

aten = torch.ops.aten


def log_softmax_reference(
    input: Shaped[Tensor, "*shape"],
    dim: int,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "*shape"]:
    """The equation in torch ops: yᵢ = xᵢ − log Σⱼ exp(xⱼ)."""
    x = input if dtype is None else input.to(dtype)
    if not x.numel():
        return x.clone()
    z = x - x.amax(dim, keepdim=True).detach()
    return z - z.exp().sum(dim, keepdim=True).log()


class LogSoftmaxFunction(Function):
    """Log-softmax along `dim` with its backward pass; `log_softmax` is the entry."""

    autocast = {"cuda": "float32"}

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.log_softmax(x, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, ctx.dim = inputs
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        # x̄ⱼ = ȳⱼ − pⱼ Σᵢ ȳᵢ
        return grad_y - y.exp() * grad_y.sum(ctx.dim, keepdim=True), None

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return aten._log_softmax_backward_data(grad_y, y, ctx.dim, y.dtype), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> Tensor:
        (y,) = ctx.saved_tensors
        return dx - (y.exp() * dx).sum(ctx.dim, keepdim=True)


def log_softmax(
    input: Shaped[Tensor, "*shape"],
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "*shape"]:
    """Computes the log-softmax along one axis with an explicit backward pass.

    Args:
        input: x, of any shape.
        dim: The axis of the classes; None as in `softmax`.
        _stacklevel: Of the warning for `dim=None`, as in torch.
        dtype: Cast x to it first.

    Returns:
        y, of the shape of x.

    Raises:
        TypeError: When x is not a tensor.
        IndexError: When x has no axis `dim`.

    Example:
        >>> x = torch.zeros(2, requires_grad=True)
        >>> log_softmax(x, dim=0)[0].backward()
        >>> x.grad
        tensor([ 0.5000, -0.5000])
    """
    arguments.tensors("log_softmax", input=input)
    x = input if dtype is None else input.to(dtype)
    return LogSoftmaxFunction.call(x, axis("log_softmax", x, dim, _stacklevel))


class LogSoftmax(torch.nn.LogSoftmax):
    """`torch.nn.LogSoftmax` with the explicit backward pass of `log_softmax`.

    Example:
        >>> LogSoftmax(dim=-1)(torch.zeros(1, 2)).exp()
        tensor([[0.5000, 0.5000]])
    """

    def forward(self, input: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Computes the log-softmax along `dim`."""
        return log_softmax(input, self.dim, _stacklevel=5)


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
    yield ModuleInput(LogSoftmax, dim=-1).on(make(5, 3))
    yield ModuleInput(LogSoftmax, 0).on(make(5, 3))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """64 KiB, 4 MiB and 64 MiB of float32, rows of 1,024 classes."""
    for rows in (16, 1024, 16384):
        yield SampleInput(f"{rows}x1024", make(rows, 1024), -1)


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """An axis that is not there."""
    sample = SampleInput("dim", make(3, 4), 2)
    yield ErrorInput(sample, IndexError, "must be in .*got 2")


opinfo = OpInfo(
    log_softmax,
    log_softmax_reference,
    torch.nn.functional.log_softmax,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
