"""MSE loss: the mean squared error, the loss of Gaussian noise (Gauss 1809).

Forward     lᵢ = (xᵢ − tᵢ)²            x, t, l (*), i over all n elements
            L = l, Σᵢ lᵢ / n or Σᵢ lᵢ for the reductions none, mean and sum
Locally     ∂lᵢ/∂xᵢ = 2 (xᵢ − tᵢ), ∂lᵢ/∂tᵢ = −2 (xᵢ − tᵢ)
Backward    x̄ᵢ = 2 (xᵢ − tᵢ) l̄ᵢ       t̄ = −x̄
            l̄ᵢ = L̄ᵢ for none, L̄/n for mean, L̄ for sum
Forward mode  l̇ᵢ = 2 (xᵢ − tᵢ) (ẋᵢ − ṫᵢ), reduced like l
Saved       x and t.
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

from . import _arguments as arguments, _reduction

aten = torch.ops.aten


def mse_loss_reference(
    input: Shaped[Tensor, "..."],
    target: Shaped[Tensor, "..."],
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Shaped[Tensor, "..."] | None = None,
) -> Shaped[Tensor, "..."]:
    """The equation in torch ops: L = Σᵢ wᵢ (xᵢ − tᵢ)² / Σᵢ wᵢ, or as reduced."""
    loss = (input - target) ** 2
    w = torch.ones_like(loss) if weight is None else weight
    if reduction == "none":
        return w * loss
    total = (w * loss).sum()
    return total if reduction == "sum" else total / w.sum()


class MSELossFunction(Function):
    """The squared error, reduced, with its backward pass; `mse_loss` is the entry."""

    autocast = {"cpu": "float32", "cuda": "float32"}

    @staticmethod
    def forward(x: Tensor, t: Tensor, reduction: str) -> Tensor:
        return aten.mse_loss(x, t, _reduction.CODES[reduction])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, t, ctx.reduction = inputs
        ctx.save_for_backward(x, t)
        ctx.save_for_forward(x, t)

    @staticmethod
    def backward(ctx: Any, grad_L: Tensor) -> tuple[Tensor | None, ...]:
        x, t = ctx.saved_tensors
        wants_x, wants_t, _ = ctx.needs_input_grad
        # l̄ᵢ = L̄/n for the mean
        grad_l = grad_L / max(x.numel(), 1) if ctx.reduction == "mean" else grad_L
        # x̄ᵢ = 2 (xᵢ − tᵢ) l̄ᵢ and t̄ = −x̄
        grad_x = 2 * (x - t) * grad_l
        return grad_x if wants_x else None, -grad_x if wants_t else None, None

    @staticmethod
    def fused_backward(ctx: Any, grad_L: Tensor) -> tuple[Tensor | None, ...]:
        x, t = ctx.saved_tensors
        wants_x, wants_t, _ = ctx.needs_input_grad
        code = _reduction.CODES[ctx.reduction]
        grad_x = aten.mse_loss_backward(grad_L, x, t, code)
        return grad_x if wants_x else None, -grad_x if wants_t else None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dt: Tensor | None, _: None) -> Tensor:
        x, t = ctx.saved_tensors
        change = torch.zeros_like(x) if dx is None else dx
        change = change if dt is None else change - dt
        dl = 2 * (x - t) * change
        return {"none": lambda: dl, "mean": dl.mean, "sum": dl.sum}[ctx.reduction]()


def mse_loss(
    input: Shaped[Tensor, "..."],
    target: Shaped[Tensor, "..."],
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Shaped[Tensor, "..."] | None = None,
) -> Shaped[Tensor, "..."]:
    """Computes the squared error with an explicit backward pass.

    Args:
        input: x, of any shape.
        target: t, of the shape of x, or one that broadcasts with it (with a warning).
        size_average: Deprecated in torch; see `reduction`.
        reduce: Deprecated in torch; see `reduction`.
        reduction: `"mean"` over all elements, `"sum"`, or `"none"`.
        weight: Weight of each element, of the shape of x; the mean is then weighted.

    Returns:
        L: one number, or one an element with `"none"`.

    Raises:
        TypeError: When x or t is not a tensor.
        ValueError: When `reduction` is unknown or `weight` has another shape than x.
        RuntimeError: When x and t do not broadcast.

    Example:
        >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> mse_loss(x, torch.zeros(2)).backward()
        >>> x.grad
        tensor([1., 3.])
    """
    arguments.tensors("mse_loss", input=input, target=target)
    reduction = _reduction.resolve("mse_loss", size_average, reduce, reduction)
    if input.shape != target.shape:
        text = (
            "mse_loss: input and target should have one shape, got "
            f"{tuple(input.shape)} and {tuple(target.shape)}; they are broadcast, "
            "which is seldom meant. Is a squeeze or an unsqueeze missing?"
        )
        warnings.warn(text, stacklevel=2)
    dtype = torch.promote_types(input.dtype, target.dtype)
    x, t = torch.broadcast_tensors(input.to(dtype), target.to(dtype))
    if weight is None:
        return MSELossFunction.call(x, t, reduction)
    if weight.shape != input.shape:
        raise ValueError(
            f"mse_loss: weight must have the shape of input, {tuple(input.shape)}, got "
            f"{tuple(weight.shape)}"
        )
    weighted = weight * MSELossFunction.call(x, t, "none")
    if reduction == "none":
        return weighted
    total = weighted.sum()
    return total if reduction == "sum" else total / weight.sum()


class MSELoss(torch.nn.MSELoss):
    """`torch.nn.MSELoss` with the explicit backward pass of `mse_loss`.

    Example:
        >>> MSELoss()(torch.ones(3), torch.zeros(3))
        tensor(1.)
    """

    def forward(
        self, input: Shaped[Tensor, "..."], target: Shaped[Tensor, "..."]
    ) -> Shaped[Tensor, "..."]:
        """Computes the squared error of `input` against `target`."""
        return mse_loss(input, target, reduction=self.reduction)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Every reduction, a constant target, weights, one element, no rows."""
    yield SampleInput("mean", make(4, 3), make(4, 3))
    yield SampleInput("sum", make(4, 3), make(4, 3), reduction="sum")
    yield SampleInput("none", make(4, 3), make(4, 3), reduction="none")
    yield SampleInput("constant_target", make(4, 3), make(4, 3).detach())
    yield SampleInput("scalar", make(), make())
    yield SampleInput("empty_sum", make(0, 3), make(0, 3), reduction="sum")
    w = make(4, 3).detach().abs() + 0.5
    for reduction in ("mean", "sum", "none"):
        arguments = {"reduction": reduction, "weight": w.requires_grad_()}
        yield SampleInput(f"weight_{reduction}", make(4, 3), make(4, 3), **arguments)


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Every reduction."""
    for reduction in ("mean", "sum", "none"):
        yield ModuleInput(MSELoss, reduction=reduction).on(make(4, 3), make(4, 3))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """64 KiB, 4 MiB and 64 MiB of float32 each; only the input needs a gradient."""
    for rows in (16, 1024, 16384):
        x, t = make(rows, 1024), make(rows, 1024).detach()
        yield SampleInput(f"{rows}x1024", x, t)


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """An unknown reduction, shapes that do not broadcast, a weight of another shape."""
    x, t = make(4, 3), make(4, 3)
    sample = SampleInput("reduction", x, t, reduction="average")
    yield ErrorInput(sample, ValueError, "'none', 'mean' or 'sum', got 'average'")
    sample = SampleInput("weight", x, t, weight=make(3))
    yield ErrorInput(sample, ValueError, "weight must have the shape of input")


opinfo = OpInfo(
    mse_loss,
    mse_loss_reference,
    torch.nn.functional.mse_loss,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
