"""Cross entropy between the softmax of scores and a target (Bridle 1990).

Forward     p = softmax(x) over the classes c, l_n = −Σ_c A_nc log p_nc
            A_nc = w_c q_nc, the weighted target; q_nc = (1−s) t_nc + s/C
            x (N, C, ...), w (C), l (N, ...); t (N, C, ...) holds probabilities, or a
            class index (N, ...) that stands for its one-hot row; s is the smoothing
            L = l, Σ_n l_n or Σ_n l_n / D for the reductions none, sum and mean
            D = Σ_n w of n's class for indices, the number of n for probabilities
            a row whose index is ignore_index counts nowhere: A_n = 0
Locally     ∂ log p_nc/∂x_nj = δ_cj − p_nj, so ∂l_n/∂x_nj = p_nj Σ_c A_nc − A_nj
Backward    x̄_nj = l̄_n (p_nj Σ_c A_nc − A_nj)   what was predicted less what is true
            t̄_nc = −l̄_n (1−s) w_c log p_nc
            l̄_n = L̄_n for none, L̄ for sum, L̄/D for mean
Forward mode  l̇_n = Σ_j (p_nj Σ_c A_nc − A_nj) ẋ_nj − (1−s) Σ_c w_c log p_nc ṫ_nc
Saved       x and the target. autograd saves log p instead, a tensor as large as x that
            nobody else needs, while x is usually alive anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from gradlab._function import Function
from gradlab._opinfo import ErrorInput, Make, ModuleInput, OpInfo, SampleInput

from . import _arguments as arguments, _reduction


def cross_entropy_reference(
    input: Float[Tensor, "..."],
    target: Shaped[Tensor, "..."],
    weight: Float[Tensor, " classes"] | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Float[Tensor, "..."]:
    """The equation in torch ops: L = −Σ_nc A_nc log p_nc, or as reduced."""
    axis = 1 if input.ndim > 1 else 0
    C = input.shape[axis]
    w = input.new_ones(C) if weight is None else weight
    w = w.reshape(-1, *[1] * (input.ndim - axis - 1))
    log_p = input - torch.logsumexp(input, axis, keepdim=True)
    if target.is_floating_point():
        t, counts = target, torch.ones_like(log_p.sum(axis))
        kept = torch.ones_like(counts, dtype=torch.bool)
    else:
        kept = target != ignore_index
        t = F.one_hot(target.where(kept, 0), C).movedim(-1, axis).to(input.dtype)
        counts = (w * t).sum(axis).where(kept, 0)
    A = w * ((1 - label_smoothing) * t + label_smoothing / C)
    loss = -(A * log_p).sum(axis).where(kept, 0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / counts.sum()


class CrossEntropyFunction(Function):
    """Cross entropy with its backward pass; `cross_entropy` is the public entry."""

    autocast = {"cpu": "float32", "cuda": "float32"}

    @staticmethod
    def forward(
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> Tensor:
        return F.cross_entropy(
            *(x, target, weight),
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, target, w, ctx.ignore_index, ctx.reduction, ctx.smoothing = inputs
        ctx.probabilities = target.is_floating_point()
        ctx.save_for_backward(x, target, w)
        ctx.save_for_forward(x, target, w)

    @staticmethod
    def backward(ctx: Any, grad_L: Tensor) -> tuple[Tensor | None, ...]:
        x, target, w = ctx.saved_tensors
        wants_x, wants_t, *_ = ctx.needs_input_grad
        axis = _axis(x)
        _, *classes = _classes(ctx, x, target, w)
        grad_l = _per_row(ctx, grad_L, *classes).unsqueeze(axis)
        log_p = torch.log_softmax(x, axis)
        grad_x = grad_t = None
        if wants_x:
            # x̄_nj = l̄_n (p_nj Σ_c A_nc − A_nj)
            A = _weighted_target(ctx, x, target, w)
            grad_x = grad_l * (log_p.exp() * A.sum(axis, keepdim=True) - A)
        if wants_t:
            # t̄_nc = −l̄_n (1−s) w_c log p_nc
            grad_t = -grad_l * (1 - ctx.smoothing) * _along(w, x) * log_p
        return grad_x, grad_t, None, None, None, None

    @staticmethod
    def fused_backward(ctx: Any, grad_L: Tensor) -> Any:
        if ctx.probabilities:
            return NotImplemented
        x, target, w = ctx.saved_tensors
        axis, C, s = _axis(x), x.shape[_axis(x)], ctx.smoothing
        index, *classes = _classes(ctx, x, target, w)
        grad_l = _per_row(ctx, grad_L, *classes)
        # A_n is (1−s) w at its class, plus s/C w everywhere: one buffer, p, is enough.
        peak = (1 - s) * classes[1] * grad_l
        total = peak + s / C * (C if w is None else w.sum()) * grad_l if s else peak
        grad_x = torch.softmax(x, axis)
        grad_x.mul_(total.to(x.dtype).unsqueeze(axis))
        if s:
            flat = grad_l.to(x.dtype).unsqueeze(axis)
            grad_x.addcmul_(flat, _along(w, x), value=-s / C)
        grad_x.scatter_add_(
            axis, index.unsqueeze(axis), -peak.to(x.dtype).unsqueeze(axis)
        )
        return grad_x, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, target, w = ctx.saved_tensors
        dx, dt, *_ = tangents
        axis = _axis(x)
        log_p = torch.log_softmax(x, axis)
        dl = torch.zeros_like(x)
        if dx is not None:
            A = _weighted_target(ctx, x, target, w)
            dl = (log_p.exp() * A.sum(axis, keepdim=True) - A) * dx
        if dt is not None:
            dl = dl - (1 - ctx.smoothing) * _along(w, x) * log_p * dt
        _, *classes = _classes(ctx, x, target, w)
        dl = dl.sum(axis) * _per_row(ctx, x.new_ones(()), *classes)
        return dl if ctx.reduction == "none" else dl.sum()


def _axis(x: Tensor) -> int:
    return 1 if x.ndim > 1 else 0


def _along(w: Tensor | None, x: Tensor) -> Tensor:
    """The class weights, to broadcast with x."""
    if w is None:
        return x.new_ones(())
    return w.to(x.dtype).reshape(-1, *[1] * (x.ndim - _axis(x) - 1))


def _classes(
    ctx: Any, x: Tensor, target: Tensor, w: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The class of each row, 0 where it is ignored; which are kept; their weights.

    Where the target holds probabilities, all are kept and weigh 1.
    """
    # Sums of many ones and weights: in float32 at least.
    dtype = torch.promote_types(x.dtype, torch.float32)
    if target.is_floating_point():
        ones = x.new_ones(x.shape[: _axis(x)] + x.shape[_axis(x) + 1 :], dtype=dtype)
        return target, ones.bool(), ones
    kept = target != ctx.ignore_index
    index = target.where(kept, 0).long()
    if w is None:
        return index, kept, kept.to(dtype)
    return index, kept, torch.take(w.to(dtype), index).where(kept, 0)


def _weighted_target(ctx: Any, x: Tensor, target: Tensor, w: Tensor | None) -> Tensor:
    """A_nc = w_c ((1−s) t_nc + s/C), also in rows that are ignored."""
    axis, t = _axis(x), target
    C = x.shape[axis]
    if not target.is_floating_point():
        classes = torch.arange(C, device=x.device).reshape(
            -1, *[1] * (x.ndim - axis - 1)
        )
        t = (target.unsqueeze(axis) == classes).to(x.dtype)
    return _along(w, x) * ((1 - ctx.smoothing) * t + ctx.smoothing / C)


def _per_row(ctx: Any, grad_L: Tensor, kept: Tensor, w_class: Tensor) -> Tensor:
    """l̄_n: the gradient of the reduced loss, for each row of x; 0 where ignored."""
    grad_l = grad_L / w_class.sum() if ctx.reduction == "mean" else grad_L
    return grad_l.expand(kept.shape).where(kept, 0)


def cross_entropy(
    input: Float[Tensor, "..."],
    target: Shaped[Tensor, "..."],
    weight: Float[Tensor, " classes"] | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Float[Tensor, "..."]:
    """Computes the cross entropy with an explicit backward pass.

    Args:
        input: x, unnormalized scores, of shape (C), (N, C) or (N, C, ...).
        target: Class indices (int64) of shape (), (N) or (N, ...), or probabilities of
            the shape of x, which may require gradients.
        weight: w, a constant weight for each class, of shape (C).
        size_average: Deprecated in torch; see `reduction`.
        ignore_index: Rows with this class index count nowhere.
        reduce: Deprecated in torch; see `reduction`.
        reduction: `"mean"`, weighted by w where the target is an index, `"sum"`, or
            `"none"`.
        label_smoothing: s, the share of the target that is spread over all classes.

    Returns:
        L, in nats: one number, or one for each row with `"none"`.

    Raises:
        TypeError: When an argument is not a tensor.
        ValueError: When the number of rows differs or `reduction` is unknown.
        RuntimeError: When another shape, a dtype, the weight or the smoothing is wrong.
        IndexError: When a class index is not in [0, C) and is not ignored.

    Example:
        >>> x = torch.zeros(1, 2, requires_grad=True)
        >>> cross_entropy(x, torch.tensor([0])).backward()
        >>> x.grad
        tensor([[-0.5000,  0.5000]])
    """
    arguments.tensors("cross_entropy", input=input, target=target)
    if weight is not None:
        arguments.tensors("cross_entropy", weight=weight)
        arguments.alike("cross_entropy", input=input, weight=weight)
    reduction = _reduction.resolve("cross_entropy", size_average, reduce, reduction)
    _validate(input, target, weight, label_smoothing)
    return CrossEntropyFunction.call(
        input, target, weight, ignore_index, reduction, float(label_smoothing)
    )


def _validate(
    x: Tensor, target: Tensor, weight: Tensor | None, smoothing: float
) -> None:
    rows = x.shape[: _axis(x)] + x.shape[_axis(x) + 1 :]
    if target.is_floating_point():
        if target.shape != x.shape:
            raise RuntimeError(
                "cross_entropy: a floating point target holds probabilities and must "
                f"have the shape of input, {tuple(x.shape)}, got {tuple(target.shape)}."
                " Class indices must be int64: use target.long()"
            )
    elif target.shape != rows:
        batch = x.ndim > 1 and target.ndim and target.shape[0] != x.shape[0]
        raise (ValueError if batch else RuntimeError)(
            "cross_entropy: class indices must have the shape of input without its "
            f"class axis, {tuple(rows)}, got {tuple(target.shape)} for an input of "
            f"shape {tuple(x.shape)}"
        )
    elif target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(
            f"cross_entropy: class indices must be int64, got {target.dtype}. "
            "Use target.long()"
        )
    if weight is not None and (
        weight.shape != x.shape[_axis(x) : _axis(x) + 1] or weight.requires_grad
    ):
        raise RuntimeError(
            f"cross_entropy: weight must be a constant of shape ({x.shape[_axis(x)]},),"
            f" one entry a class, got {tuple(weight.shape)} with "
            f"requires_grad={weight.requires_grad}"
        )
    if not 0 <= smoothing <= 1:
        raise RuntimeError(
            f"cross_entropy: label_smoothing must be in [0, 1], got {smoothing}"
        )


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss` with the explicit backward pass of `cross_entropy`.

    Example:
        >>> CrossEntropyLoss()(torch.zeros(1, 2), torch.tensor([1]))
        tensor(0.6931)
    """

    def forward(
        self, input: Float[Tensor, "..."], target: Shaped[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Computes the cross entropy of scores `input` against `target`."""
        return cross_entropy(
            *(input, target, self.weight),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


def sample_inputs(make: Make) -> Iterator[SampleInput]:
    """Indices and probabilities, every option, images, one row, ignored, no rows."""
    x, y = make(4, 5), torch.tensor([0, 2, -100, 4])
    w = make(5).detach().abs() + 0.5
    for reduction in ("mean", "sum", "none"):
        yield SampleInput(reduction, x, y, reduction=reduction)
    yield SampleInput("weight", x, y, w)
    yield SampleInput("smoothing", x, y, label_smoothing=0.2)
    options = {"ignore_index": 2, "reduction": "none", "label_smoothing": 0.2}
    yield SampleInput("all", x, y.abs() % 5, w, **options)
    yield SampleInput("one_row", make(5), torch.tensor(3), w)
    pixels = torch.tensor([[[0, 2], [1, 0]], [[2, -100], [1, 1]]])
    yield SampleInput("image", make(2, 3, 2, 2), pixels, label_smoothing=0.1)
    yield SampleInput("large", make(3, 5, scale=1e3), y[[0, 1, 3]])
    t = make(4, 5).detach().softmax(1).requires_grad_()
    yield SampleInput("probabilities", x, t)
    yield SampleInput("constant_probabilities", x, t.detach(), reduction="sum")
    options = {"weight": w, "label_smoothing": 0.2, "reduction": "none"}
    yield SampleInput("probabilities_all", x, t, **options)
    yield SampleInput("empty_sum", make(0, 5), y[:0], reduction="sum")
    ignored = torch.full((4,), -100)
    yield SampleInput("all_ignored_sum", x, ignored, reduction="sum")


def module_inputs(make: Make) -> Iterator[ModuleInput]:
    """Plain, and with every option."""
    x, y = make(4, 5), torch.tensor([0, 2, 1, 4])
    yield ModuleInput(CrossEntropyLoss).on(x, y)
    w = make(5).detach().abs()
    options = {"ignore_index": 1, "reduction": "sum", "label_smoothing": 0.1}
    yield ModuleInput(CrossEntropyLoss, w, **options).on(x, y)


def bench_inputs(make: Make) -> Iterator[SampleInput]:
    """The digits, ImageNet, and a small vocabulary."""
    for rows, classes in ((64, 10), (256, 1000), (1024, 32000)):
        y = torch.arange(rows) % classes
        yield SampleInput(f"{rows}x{classes}", make(rows, classes), y)


def error_inputs(make: Make) -> Iterator[ErrorInput]:
    """Rows, dtypes, a class beyond the last, weights, smoothing, reduction."""
    x, y = make(4, 5), torch.tensor([0, 1, 2, 3])
    yield ErrorInput(
        SampleInput("rows", x, y[:3]), ValueError, "shape of input without"
    )
    sample = SampleInput("float_indices", x, y.double())
    yield ErrorInput(sample, RuntimeError, "use target.long")
    yield ErrorInput(SampleInput("int32", x, y.int()), RuntimeError, "must be int64")
    yield ErrorInput(SampleInput("list", x, [0, 1, 2, 3]), TypeError, "target must be")
    sample = SampleInput("weight_dtype", x, y, make(5).detach().float())
    yield ErrorInput(sample, RuntimeError, "must have one dtype")
    yield ErrorInput(SampleInput("class", x, y + 2), IndexError, "out of bounds")
    sample = SampleInput("weight", x, y, make(4).detach())
    yield ErrorInput(sample, RuntimeError, "one entry a class")
    sample = SampleInput("smoothing", x, y, label_smoothing=1.5)
    yield ErrorInput(sample, RuntimeError, "in .0, 1., got 1.5")
    sample = SampleInput("reduction", x, y, reduction="average")
    yield ErrorInput(sample, ValueError, "'none', 'mean' or 'sum'")


opinfo = OpInfo(
    cross_entropy,
    cross_entropy_reference,
    F.cross_entropy,
    sample_inputs,
    module_inputs,
    bench_inputs,
    error_inputs,
)
