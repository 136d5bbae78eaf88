"""Layer norm: every row to mean 0 and variance 1 (Ba, Kiros & Hinton 2016).

Forward     μ = ⟨x⟩, r = 1/√(⟨(x−μ)²⟩ + ε), x̂ = r (x − μ), y = x̂ ∘ w + b
            x, y (*, d), w, b (d), μ, r (*); ⟨·⟩ the mean over the normalized axes d
Locally     ∂x̂ᵢ/∂xⱼ = r (δᵢⱼ − 1/d − x̂ᵢ x̂ⱼ/d): a move along all ones, or along x̂,
            changes nothing
Backward    g = ȳ ∘ w
            x̄ = r (g − ⟨g⟩ − x̂ ⟨g ∘ x̂⟩)
            w̄ = Σₙ ȳ_n ∘ x̂_n, b̄ = Σₙ ȳ_n, n over the rows
Forward mode  ẏ = r (ẋ − ⟨ẋ⟩ − x̂ ⟨x̂ ∘ ẋ⟩) ∘ w + x̂ ∘ ẇ + ḃ
Saved       x, w and one μ and r a row; where something differentiates through the
            backward, μ and r are computed again from x, since they depend on it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments

aten = torch.ops.aten


def layer_norm_reference(
    input: Float[Tensor, "*shape"],
    normalized_shape: Sequence[int],
    weight: Float[Tensor, "*normalized"] | None = None,
    bias: Float[Tensor, "*normalized"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*shape"]:
    """The equation in torch ops: y = (x − μ) / √(σ² + ε) ∘ w + b."""
    axes = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(axes, keepdim=True)
    y = centred / torch.sqrt((centred**2).mean(axes, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _normalize(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    """x̂ = r (x − μ), and r."""
    centred = x - x.mean(axes, keepdim=True)
    r = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    return r * centred, r


class LayerNormFunction(Function):
    """Layer norm with its backward pass; `layer_norm` is the public entry."""

    autocast = {"cuda": "float32"}

    @staticmethod
    def forward(
        x: Tensor,
        shape: tuple[int, ...],
        w: Tensor | None,
        b: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return aten.native_layer_norm(x, shape, w, b, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.shape, w, b, ctx.eps = inputs
        _, mean, r = output
        ctx.mark_non_differentiable(mean, r)
        ctx.save_for_backward(x, w, b, mean, r)
        ctx.save_for_forward(x, w)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        x, w, _, _, _ = ctx.saved_tensors
        wants_x, _, wants_w, wants_b, _ = ctx.needs_input_grad
        axes = tuple(range(-len(ctx.shape), 0))
        rows = (x.shape[: x.ndim - len(ctx.shape)].numel(), *ctx.shape)
        x_hat, r = _normalize(x, axes, ctx.eps)
        grad_x = grad_w = grad_b = None
        if wants_x:
            g = grad_y if w is None else grad_y * w
            # x̄ = r (g − ⟨g⟩ − x̂ ⟨g ∘ x̂⟩)
            along = x_hat * (g * x_hat).mean(axes, keepdim=True)
            grad_x = r * (g - g.mean(axes, keepdim=True) - along)
        if wants_w:
            # w̄ = Σₙ ȳ_n ∘ x̂_n
            grad_w = (grad_y * x_hat).reshape(rows).sum(0)
        if wants_b:
            # b̄ = Σₙ ȳ_n
            grad_b = grad_y.reshape(rows).sum(0)
        return grad_x, None, grad_w, grad_b, None

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        x, w, b, mean, r = ctx.saved_tensors
        wants_x, _, wants_w, wants_b, _ = ctx.needs_input_grad
        wants = [wants_x, wants_w, wants_b]
        grad_x, grad_w, grad_b = aten.native_layer_norm_backward(
            grad_y, x, ctx.shape, mean, r, w, b, wants
        )
        return grad_x, None, grad_w, grad_b, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None, None]:
        x, w = ctx.saved_tensors
        dx, _, dw, db, _ = tangents
        axes = tuple(range(-len(ctx.shape), 0))
        x_hat, r = _normalize(x, axes, ctx.eps)
        dy = torch.zeros_like(x_hat)
        if dx is not None:
            # ẏ = r (ẋ − ⟨ẋ⟩ − x̂ ⟨x̂ ∘ ẋ⟩) ∘ w + x̂ ∘ ẇ + ḃ
            along = x_hat * (x_hat * dx).mean(axes, keepdim=True)
            dy = r * (dx - dx.mean(axes, keepdim=True) - along)
            dy = dy if w is None else dy * w
        dy = dy if dw is None else dy + x_hat * dw
        return dy if db is None else dy + db, None, None


def layer_norm(
    input: Float[Tensor, "*shape"],
    normalized_shape: Sequence[int],
    weight: Float[Tensor, "*normalized"] | None = None,
    bias: Float[Tensor, "*normalized"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*shape"]:
    """Computes layer normalization with an explicit backward pass.

    Args:
        input: x, of shape (*, *normalized_shape).
        normalized_shape: The last axes of x, over which μ and r are taken.
        weight: w, of shape normalized_shape, or None.
        bias: b, of shape normalized_shape, or None.
        eps: ε, added to the variance.

    Returns:
        y, of the shape of x.

    Raises:
        TypeError: When an argument is of another kind.
        RuntimeError: When the shapes do not fit together.

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
        >>> layer_norm(x, (3,)).sum().backward()
        >>> x.grad.abs().max() < 1e-6
        tensor(True)
    """
    arguments.tensors("layer_norm", input=input)
    if not isinstance(normalized_shape, Sequence):
        raise TypeError(
            "layer_norm: normalized_shape must be a sequence of numbers, got "
            f"{normalized_shape!r}; for the last axis alone say ({normalized_shape!r},)"
        )
    shape = tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        raise RuntimeError(
            "layer_norm: normalized_shape must be the last axes of input, at least one;"
            f" got normalized_shape {shape} and an input of shape {tuple(input.shape)}"
        )
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is None:
            continue
        arguments.tensors("layer_norm", **{name: parameter})
        if tuple(parameter.shape) != shape:
            raise RuntimeError(
                f"layer_norm: {name} must have shape normalized_shape = {shape}, got "
                f"{tuple(parameter.shape)}"
            )
    return LayerNormFunction.call(input, shape, weight, bias, eps)[0]


class LayerNorm(torch.nn.LayerNorm):
    """`torch.nn.LayerNorm` with the explicit backward pass of `layer_norm`.

    Example:
        >>> LayerNorm(4)(torch.randn(2, 4)).shape
        torch.Size([2, 4])
    """

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Normalizes the last axes of `input`."""
        shape = self.normalized_shape
        return layer_norm(input, shape, self.weight, self.bias, self.eps)


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """With and without w and b, one and two axes, no batch axes, no rows, large ε."""
    yield SampleInput("affine", make(4, 5), (5,), make(5), make(5))
    yield SampleInput("plain", make(4, 5), (5,))
    yield SampleInput("no_bias", make(2, 3, 5), (5,), make(5))
    yield SampleInput("no_weight", make(4, 5), (5,), None, make(5))
    yield SampleInput("two_axes", make(2, 3, 5), (3, 5), make(3, 5), make(3, 5))
    yield SampleInput("one_row", make(5), (5,), make(5), make(5))
    yield SampleInput("empty_batch", make(0, 5), (5,), make(5), make(5))
    yield SampleInput("eps", make(4, 5), (5,), make(5), make(5), eps=0.5)


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Every combination of w and b, one and two axes."""
    yield ModuleInput(LayerNorm, 5).on(make(4, 5))
    yield ModuleInput(LayerNorm, 5, bias=False).on(make(4, 5))
    yield ModuleInput(LayerNorm, (3, 5), elementwise_affine=False).on(make(4, 3, 5))


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """64 KiB, 4 MiB and 64 MiB of float32, rows of 1,024 features."""
    for rows in (16, 1024, 16384):
        x, w, b = make(rows, 1024), make(1024), make(1024)
        yield SampleInput(f"{rows}x1024", x, (1024,), w, b)


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """Axes that are not the last ones, none at all, a weight of another shape."""
    x = make(4, 5)
    sample = SampleInput("axes", x, (4,))
    yield ErrorInput(sample, RuntimeError, "must be the last axes of input")
    sample = SampleInput("number", x, 5)
    yield ErrorInput(sample, TypeError, "sequence of numbers, got 5; .*say .5,.")
    sample = SampleInput("none", x, ())
    yield ErrorInput(sample, RuntimeError, "at least one")
    sample = SampleInput("weight", x, (5,), make(4))
    yield ErrorInput(sample, RuntimeError, "weight must have shape")


opinfo = OpInfo(
    layer_norm,
    layer_norm_reference,
    torch.nn.functional.layer_norm,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
