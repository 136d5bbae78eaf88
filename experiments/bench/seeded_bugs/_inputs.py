"""Bugs of the point: right at ordinary random inputs, wrong at special ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab._opinfo import Make

from ._healthy_layers import (
    CrossEntropy,
    Embedding,
    Gelu,
    Layer,
    LayerNorm,
    RmsNorm,
    Softplus,
    embedding_backward,
    fit,
    layer_norm_backward,
    layer_norm_forward,
    layer_normal,
    layer_scale,
    rms_norm_backward,
    rms_normal,
    rms_scale,
    rows,
    wide,
)
from ._seeded_bug import SeededBug


def _positive(make: Make, *shape: int) -> Tensor:
    return (make(*shape).detach().abs() + 0.1).requires_grad_()


def _constant(make: Make, value: float, *shape: int) -> Tensor:
    return torch.full_like(make(*shape), value).requires_grad_()


class Norm(torch.autograd.Function):
    """y = |x|, of every row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.linalg.vector_norm(x, dim=-1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, y = (wide(t) for t in ctx.saved_tensors)
        zero = y == 0
        scale = wide(grad_y) / torch.where(zero, 1.0, y)
        scale = torch.where(zero, 0.0, scale).unsqueeze(-1)
        return (x * scale).to(ctx.saved_tensors[0].dtype)


class NormOfZero(Norm):
    """Divides by the norm, which is zero for a row of zeros."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, y = (wide(t) for t in ctx.saved_tensors)
        return (x * (wide(grad_y) / y).unsqueeze(-1)).to(grad_y.dtype)


class StdDev(torch.autograd.Function):
    """Standard deviation of every row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.std(-1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, y = (wide(t) for t in ctx.saved_tensors)
        zero = y == 0
        scale = wide(grad_y) / ((x.shape[-1] - 1) * torch.where(zero, 1.0, y))
        scale = torch.where(zero, 0.0, scale).unsqueeze(-1)
        return ((x - x.mean(-1, keepdim=True)) * scale).to(grad_y.dtype)


class StdDevOfConstant(StdDev):
    """Divides by the deviation, which is zero for a constant row."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, y = (wide(t) for t in ctx.saved_tensors)
        scale = (wide(grad_y) / ((x.shape[-1] - 1) * y)).unsqueeze(-1)
        return ((x - x.mean(-1, keepdim=True)) * scale).to(grad_y.dtype)


class Power(Layer):
    """y = x^p, with broadcasting."""

    @staticmethod
    def forward(x: Tensor, p: Tensor) -> Tensor:
        return x.pow(p)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, p = (wide(t) for t in ctx.saved_tensors)
        g = wide(grad_y)
        grad_x = grad_p = None
        if ctx.needs_input_grad[0]:
            grad = torch.where(p == 0, 0.0, g * p * x.pow(p - 1))
            grad_x = fit(grad, ctx.saved_tensors[0])
        if ctx.needs_input_grad[1]:
            flat = (x == 0) & (p >= 0)
            log = torch.where(flat, 1.0, x).log()
            grad = torch.where(flat, 0.0, g * x.pow(p) * log)
            grad_p = fit(grad, ctx.saved_tensors[1])
        return grad_x, grad_p


_power_backward = Power.backward


class PowerOfZero(Power):
    """0^p log 0 is 0 times minus infinity: NaN."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, p = (wide(t) for t in ctx.saved_tensors)
        grad_x, grad_p = _power_backward(ctx, grad_y)
        if grad_p is not None:
            grad = wide(grad_y) * x.pow(p) * x.log()
            grad_p = fit(grad, ctx.saved_tensors[1])
        return grad_x, grad_p


class Angle(Layer):
    """Angle of (x, y), by atan2."""

    @staticmethod
    def forward(y: Tensor, x: Tensor) -> Tensor:
        return torch.atan2(y, x)

    @staticmethod
    def over_square(ctx: Any, grad: Tensor) -> Tensor:
        """Returns the gradient over x² + y², and zero at the origin."""
        y, x = (wide(t) for t in ctx.saved_tensors)
        square = x.square() + y.square()
        zero = square == 0
        return torch.where(zero, 0.0, wide(grad) / torch.where(zero, 1.0, square))

    @staticmethod
    def backward(ctx: Any, grad_angle: Tensor) -> Any:
        y, x = ctx.saved_tensors
        scale = Angle.over_square(ctx, grad_angle)
        grad_y = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_y = fit(scale * wide(x), y)
        if ctx.needs_input_grad[1]:
            grad_x = fit(-scale * wide(y), x)
        return grad_y, grad_x


class AngleOfOrigin(Angle):
    """Divides by x² + y², which is zero at the origin."""

    @staticmethod
    def backward(ctx: Any, grad_angle: Tensor) -> Any:
        y, x = ctx.saved_tensors
        scale = wide(grad_angle) / (wide(x).square() + wide(y).square())
        grad_y = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_y = fit(scale * wide(x), y)
        if ctx.needs_input_grad[1]:
            grad_x = fit(-scale * wide(y), x)
        return grad_y, grad_x


class Product(Layer):
    """Product of every row."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.prod(-1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        z = wide(x)
        one = torch.ones_like(z[..., :1])
        before = torch.cat([one, z[..., :-1]], -1).cumprod(-1)
        after = torch.cat([one, z.flip(-1)[..., :-1]], -1).cumprod(-1).flip(-1)
        return (wide(grad_y).unsqueeze(-1) * before * after).to(x.dtype)


class ProductDivides(Product):
    """Divides the product by the factor, which may be zero."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        z = wide(x)
        product = wide(grad_y) * z.prod(-1)
        return (product.unsqueeze(-1) / z).to(x.dtype)


class SafeLog(Layer):
    """y = log(max(x, 1e-3))."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(min=1e-3).log()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        inside = x >= 1e-3
        return torch.where(inside, grad_y / torch.where(inside, x, 1.0), 0.0)


class SafeLogForgetsClamp(SafeLog):
    """The gradient below the clamp is 1 / x, not zero."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grad_y / x


class Amax(torch.autograd.Function):
    """Maximum of every row; tied entries share the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.amax(-1, keepdim=True)
        ctx.save_for_backward(x == y)
        return y.squeeze(-1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (top,) = ctx.saved_tensors
        share = wide(grad_y).unsqueeze(-1) / top.sum(-1, keepdim=True)
        return torch.where(top, share, 0.0).to(grad_y.dtype)


class AmaxTies(Amax):
    """Every tied entry gets the whole gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (top,) = ctx.saved_tensors
        return torch.where(top, grad_y.unsqueeze(-1), 0.0)


class Maximum(Layer):
    """y = max(a, b), with broadcasting; a tie is shared."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        shared = torch.where(a == b, grad_y / 2, grad_y)
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = fit(torch.where(a >= b, shared, 0.0), a)
        if ctx.needs_input_grad[1]:
            grad_b = fit(torch.where(b >= a, shared, 0.0), b)
        return grad_a, grad_b


class MaximumTies(Maximum):
    """a >= b and b >= a are both true of a tie, which counts twice."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = fit(torch.where(a >= b, grad_y, 0.0), a)
        if ctx.needs_input_grad[1]:
            grad_b = fit(torch.where(b >= a, grad_y, 0.0), b)
        return grad_a, grad_b


class MaxPool1d(torch.autograd.Function):
    """Maximum of every two neighbours; the first of a tie gets the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        left, right = x[..., 0:-1:2], x[..., 1::2]
        ctx.shape = x.shape
        ctx.save_for_backward(left, right)
        return torch.where(left >= right, left, right)

    @staticmethod
    def pair(ctx: Any, grad_left: Tensor, grad_right: Tensor) -> Tensor:
        """Returns the gradient of x from those of its even and odd entries."""
        both = torch.stack([grad_left, grad_right], -1)
        both = both.reshape(*both.shape[:-2], 2 * both.shape[-2])
        return F.pad(both, (0, ctx.shape[-1] - both.shape[-1]))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        left, right = ctx.saved_tensors
        grad_left = torch.where(left >= right, grad_y, 0.0)
        grad_right = torch.where(left >= right, 0.0, grad_y)
        return MaxPool1d.pair(ctx, grad_left, grad_right)


class MaxPool1dTies(MaxPool1d):
    """Whatever equals the maximum gets the whole gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        left, right = ctx.saved_tensors
        y = torch.maximum(left, right)
        grad_left = torch.where(left == y, grad_y, 0.0)
        grad_right = torch.where(right == y, grad_y, 0.0)
        return MaxPool1d.pair(ctx, grad_left, grad_right)


class EmbeddingOverwrites(Embedding):
    """Rows are assigned: of a repeated index, only the last gradient stays."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        flat, g = index.reshape(-1), rows(grad_y)
        return g.new_zeros(ctx.shape).index_copy(0, flat, g), None


class Gather(torch.autograd.Function):
    """y[i, j] = x[i, index[i, j]]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.gather(-1, index)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        g = wide(grad_y)
        summed = g.new_zeros(ctx.shape).scatter_add(-1, index, g)
        return summed.to(grad_y.dtype), None


class GatherOverwrites(Gather):
    """`scatter` assigns where `scatter_add` would sum."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        return grad_y.new_zeros(ctx.shape).scatter(-1, index, grad_y), None


class PaddedEmbedding(torch.autograd.Function):
    """y = weight[index], and zero where the index is 0: the padding."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = weight.shape
        y = F.embedding(index, weight)
        return torch.where((index == 0).unsqueeze(-1), 0.0, y)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        g = torch.where((index == 0).unsqueeze(-1), 0.0, wide(grad_y))
        summed = g.new_zeros(ctx.shape).index_add(0, index.reshape(-1), rows(g))
        return summed.to(grad_y.dtype), None


class PaddedEmbeddingTrainsPadding(PaddedEmbedding):
    """The row of the padding gets a gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return embedding_backward(ctx, grad_y)


class CrossEntropyCountsIgnored(CrossEntropy):
    """The mean is over all targets, those to ignore included."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        grad = CrossEntropy.difference(x, target) * wide(grad_loss)
        counted = (target != -100).unsqueeze(1)
        n = max(target.numel(), 1)
        return torch.where(counted, grad / n, 0.0).to(x.dtype), None


class CrossEntropyTrainsIgnored(CrossEntropy):
    """Targets to ignore are clamped to class 0, and trained as such."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        n = (target != -100).sum().clamp(min=1)
        grad = CrossEntropy.difference(x, target) * wide(grad_loss) / n
        return grad.to(x.dtype), None


class SoftplusOverflows(Softplus):
    """exp(x) / (1 + exp(x)) is infinity over infinity for large x."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        e = wide(x).exp()
        return (wide(grad_y) * e / (1 + e)).to(x.dtype)


class LogSumExp(Layer):
    """y = log Σ exp(x), of every row."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.logsumexp(x, -1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g = wide(grad_y).unsqueeze(-1)
        return (g * torch.softmax(wide(x), -1)).to(x.dtype)


class LogSumExpOverflows(LogSumExp):
    """Exponentials without the maximum taken off first."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        e = wide(x).exp()
        g = wide(grad_y).unsqueeze(-1)
        return (g * e / e.sum(-1, keepdim=True)).to(x.dtype)


class BinaryCrossEntropy(Layer):
    """Elementwise -t log σ(x) - (1 - t) log(1 - σ(x)); t gets no gradient."""

    @staticmethod
    def forward(x: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            x, target.to(x.dtype), reduction="none"
        )

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, target = ctx.saved_tensors
        return (wide(grad_y) * (torch.sigmoid(wide(x)) - target)).to(x.dtype), None


class BinaryCrossEntropySaturates(BinaryCrossEntropy):
    """Divides by p (1 - p) and multiplies by it: 0 / 0 once σ(x) rounds to 1."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, target = ctx.saved_tensors
        p = torch.sigmoid(wide(x))
        grad_p = (p - target) / (p * (1 - p))
        return (wide(grad_y) * grad_p * (p * (1 - p))).to(x.dtype), None


class Hardtanh(Layer):
    """y = min(max(x, -1), 1)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.hardtanh(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where((x > -1) & (x < 1), grad_y, 0.0)


class HardtanhForgetsLower(Hardtanh):
    """Only the upper limit stops the gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x < 1, grad_y, 0.0)


class Relu6(Layer):
    """y = min(max(x, 0), 6)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.relu6(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) & (x < 6), grad_y, 0.0)


class Relu6ForgetsSix(Relu6):
    """The backward is that of relu."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, grad_y, 0.0)


class Elu(Layer):
    """y = x where x > 0, exp(x) - 1 elsewhere."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.elu(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * wide(x).clamp(max=0).exp()).to(x.dtype)


class EluSeries(Elu):
    """exp(x) of negative x by a series, which is bad for x below -1."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        z = wide(x).clamp(max=0)
        series = sum((z**n / math.factorial(n) for n in range(16)), 0 * z)
        return (wide(grad_y) * series).to(x.dtype)


class GeluCutsAtThree(Gelu):
    """Beyond |x| = 3 the slope is taken for 0 or 1, to save the erf."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        slope = torch.where(x.abs() > 3, (x > 0).to(x.dtype), Gelu.slope(x))
        return (wide(grad_y) * slope).to(x.dtype)


class SmoothL1(Layer):
    """Elementwise d² / 2 where |d| < 1 and |d| - 1/2 elsewhere, d = a - b."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return F.smooth_l1_loss(a, b, reduction="none")

    @staticmethod
    def slope(d: Tensor) -> Tensor:
        """Returns d between -1 and 1, and its sign elsewhere."""
        return d.clamp(-1, 1)

    @classmethod
    def gradients(cls, ctx: Any, grad_y: Tensor) -> Any:
        """Returns the gradients of both, of opposite signs."""
        a, b = ctx.saved_tensors
        g = wide(grad_y) * cls.slope(wide(a) - wide(b))
        needs = ctx.needs_input_grad
        return fit(g, a) if needs[0] else None, fit(-g, b) if needs[1] else None

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return SmoothL1.gradients(ctx, grad_y)


class SmoothL1LosesSign(SmoothL1):
    """The linear part has slope 1 on both sides."""

    @staticmethod
    def slope(d: Tensor) -> Tensor:
        return torch.where(d.abs() < 1, d, 1.0)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return SmoothL1LosesSign.gradients(ctx, grad_y)


class LayerNormWeighsTwice(LayerNorm):
    """The term through the variance has the weight twice: hidden by weight 1."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = layer_norm_backward(ctx, grad_y)
        if grad_x is not None:
            w, normal = wide(weight), layer_normal(x)
            h = wide(grad_y) * w
            inner = (h * w * normal).mean(-1, keepdim=True)
            centered = h - h.mean(-1, keepdim=True)
            grad_x = (layer_scale(x) * (centered - normal * inner)).to(x.dtype)
        return grad_x, grad_weight, grad_bias


class RmsNormForgetsWeight(RmsNorm):
    """The gradient of x lacks the weight: hidden by weight 1."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, _ = ctx.saved_tensors
        grad_x, grad_weight = rms_norm_backward(ctx, grad_y)
        if grad_x is not None:
            g, normal = wide(grad_y), rms_normal(x)
            inner = (g * normal).mean(-1, keepdim=True)
            grad_x = (rms_scale(x) * (g - normal * inner)).to(x.dtype)
        return grad_x, grad_weight


class RmsNormForgetsEps(RmsNorm):
    """No eps in the backward: hidden unless x is tiny, NaN for a row of zeros."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = rms_norm_backward(ctx, grad_y)
        if grad_x is not None:
            scale = wide(x).square().mean(-1, keepdim=True).rsqrt()
            h, normal = wide(grad_y) * wide(weight), wide(x) * scale
            inner = (h * normal).mean(-1, keepdim=True)
            grad_x = (scale * (h - normal * inner)).to(x.dtype)
        return grad_x, grad_weight


class LayerNormFromOutput(LayerNorm):
    """Recovers the normalised x from y as y / w, and forgets the bias."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = layer_norm_backward(ctx, grad_y)
        if grad_weight is not None:
            y = layer_norm_forward(x, weight, bias)
            product = wide(grad_y) * wide(y) / wide(weight)
            grad_weight = fit(product, weight)
        return grad_x, grad_weight, grad_bias


class ShiftScale(Layer):
    """y = (x - shift) scale, with broadcasting."""

    @staticmethod
    def forward(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return (x - shift) * scale

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, shift, scale = ctx.saved_tensors
        g = wide(grad_y)
        grad_x = grad_shift = grad_scale = None
        if ctx.needs_input_grad[0]:
            grad_x = fit(g * wide(scale), x)
        if ctx.needs_input_grad[1]:
            grad_shift = -fit(g * wide(scale), shift)
        if ctx.needs_input_grad[2]:
            product = g * (wide(x) - wide(shift))
            grad_scale = fit(product, scale)
        return grad_x, grad_shift, grad_scale


_shift_scale_backward = ShiftScale.backward


class ShiftScaleForgetsShift(ShiftScale):
    """The gradient of the scale lacks the shift: hidden by shift 0."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, _, scale = ctx.saved_tensors
        grad_x, grad_shift, grad_scale = _shift_scale_backward(ctx, grad_y)
        if grad_scale is not None:
            product = wide(grad_y) * wide(x)
            grad_scale = fit(product, scale)
        return grad_x, grad_shift, grad_scale


class GatedCell(Layer):
    """The last line of a GRU: h' = n + σ(z) (h - n)."""

    @staticmethod
    def forward(z: Tensor, n: Tensor, h: Tensor) -> Tensor:
        return n + torch.sigmoid(z) * (h - n)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        z, n, h = ctx.saved_tensors
        g, s = wide(grad_y), torch.sigmoid(wide(z))
        needs = ctx.needs_input_grad
        d = wide(h) - wide(n)
        grad_z = fit(g * d * s * (1 - s), z) if needs[0] else None
        grad_n = fit(g * (1 - s), n) if needs[1] else None
        grad_h = fit(g * s, h) if needs[2] else None
        return grad_z, grad_n, grad_h


_gated_cell_backward = GatedCell.backward


class GatedCellForgetsState(GatedCell):
    """The gate's gradient lacks the previous state: hidden by a state of zeros."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        z, n, _ = ctx.saved_tensors
        grad_z, grad_n, grad_h = _gated_cell_backward(ctx, grad_y)
        if grad_z is not None:
            s = torch.sigmoid(wide(z))
            grad_z = fit(wide(grad_y) * -wide(n) * s * (1 - s), z)
        return grad_z, grad_n, grad_h


class SegmentSum(torch.autograd.Function):
    """y[s] = Σ x[i] over the rows i of segment s, of 3 segments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, segment: Tensor) -> Tensor:
        ctx.save_for_backward(segment)
        return x.new_zeros(3, *x.shape[1:]).index_add(0, segment, x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (segment,) = ctx.saved_tensors
        return grad_y.index_select(0, segment), None


class SegmentSumAssumesSorted(SegmentSum):
    """Repeats every segment's gradient by its count, as if segments were in order."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (segment,) = ctx.saved_tensors
        counts = torch.bincount(segment, minlength=3)
        return grad_y.repeat_interleave(counts, 0), None


class MaskedMean(torch.autograd.Function):
    """Mean of the entries of every row whose mask is True."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        count = mask.sum(-1).clamp(min=1)
        ctx.save_for_backward(x, mask, count)
        return (torch.where(mask, wide(x), 0.0).sum(-1) / count).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, mask, count = ctx.saved_tensors
        share = (wide(grad_y) / count).unsqueeze(-1)
        return fit(torch.where(mask, share, 0.0), x), None


class MaskedMeanForgetsMask(MaskedMean):
    """The gradient also goes to masked entries."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, mask, count = ctx.saved_tensors
        share = (wide(grad_y) / count).unsqueeze(-1)
        return fit(share.expand(*share.shape[:-1], mask.shape[-1]), x), None


bugs = (
    SeededBug(
        "norm_divides_by_zero_for_zero_row",
        "input",
        NormOfZero.apply,
        Norm.apply,
        lambda make: (make(3, 4),),
        "pytorch#2421",
    ),
    SeededBug(
        "std_divides_by_zero_for_constant_row",
        "input",
        StdDevOfConstant.apply,
        StdDev.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "power_nan_for_exponent_at_zero",
        "input",
        PowerOfZero.apply,
        Power.apply,
        lambda make: (_positive(make, 3, 4), make(3, 4)),
        "textbook",
    ),
    SeededBug(
        "atan2_nan_at_origin",
        "input",
        AngleOfOrigin.apply,
        Angle.apply,
        lambda make: (make(3, 4), make(3, 4)),
        "pytorch#165427",
    ),
    SeededBug(
        "prod_divides_by_zero_factor",
        "input",
        ProductDivides.apply,
        Product.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "safe_log_forgets_clamp",
        "input",
        SafeLogForgetsClamp.apply,
        SafeLog.apply,
        lambda make: (_positive(make, 3, 4),),
        "textbook",
    ),
    SeededBug(
        "amax_gives_whole_gradient_to_each_tie",
        "input",
        AmaxTies.apply,
        Amax.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "maximum_counts_tie_twice",
        "input",
        MaximumTies.apply,
        Maximum.apply,
        lambda make: (make(3, 4), make(3, 4)),
        "textbook",
    ),
    SeededBug(
        "max_pool1d_gives_whole_gradient_to_each_tie",
        "input",
        MaxPool1dTies.apply,
        MaxPool1d.apply,
        lambda make: (make(3, 6),),
        "textbook",
    ),
    SeededBug(
        "embedding_overwrites_repeated_index",
        "input",
        EmbeddingOverwrites.apply,
        Embedding.apply,
        lambda make: (make(7, 4), torch.tensor([5, 2, 0, 6])),
        "cudnn-frontend#385",
    ),
    SeededBug(
        "gather_overwrites_repeated_index",
        "input",
        GatherOverwrites.apply,
        Gather.apply,
        lambda make: (make(2, 4), torch.tensor([[2, 0], [1, 3]])),
        "cudnn-frontend#385",
    ),
    SeededBug(
        "padded_embedding_trains_padding",
        "input",
        PaddedEmbeddingTrainsPadding.apply,
        PaddedEmbedding.apply,
        lambda make: (make(7, 4), torch.tensor([5, 2, 1, 6])),
        "textbook",
    ),
    SeededBug(
        "cross_entropy_mean_counts_ignored_targets",
        "input",
        CrossEntropyCountsIgnored.apply,
        CrossEntropy.apply,
        lambda make: (make(4, 6), torch.tensor([2, 0, 5, 3])),
        "miles#2796",
    ),
    SeededBug(
        "cross_entropy_trains_ignored_targets",
        "input",
        CrossEntropyTrainsIgnored.apply,
        CrossEntropy.apply,
        lambda make: (make(4, 6), torch.tensor([2, 0, 5, 3])),
        "NemotronParse#3760",
    ),
    SeededBug(
        "softplus_overflows_at_large_x",
        "input",
        SoftplusOverflows.apply,
        Softplus.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "logsumexp_overflows_at_large_x",
        "input",
        LogSumExpOverflows.apply,
        LogSumExp.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "binary_cross_entropy_nan_when_saturated",
        "input",
        BinaryCrossEntropySaturates.apply,
        BinaryCrossEntropy.apply,
        lambda make: (make(4), torch.tensor([0, 1, 1, 0])),
        "textbook",
    ),
    SeededBug(
        "hardtanh_forgets_lower_limit",
        "input",
        HardtanhForgetsLower.apply,
        Hardtanh.apply,
        lambda make: (make(3, 4, scale=0.2),),
        "textbook",
    ),
    SeededBug(
        "relu6_forgets_six",
        "input",
        Relu6ForgetsSix.apply,
        Relu6.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "elu_series_bad_for_very_negative_x",
        "input",
        EluSeries.apply,
        Elu.apply,
        lambda make: (make(3, 4, scale=0.3),),
        "textbook",
    ),
    SeededBug(
        "gelu_cuts_slope_beyond_three",
        "input",
        GeluCutsAtThree.apply,
        Gelu.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "smooth_l1_linear_part_loses_sign",
        "input",
        SmoothL1LosesSign.apply,
        SmoothL1.apply,
        lambda make: (make(3, 4, scale=0.1), make(3, 4, scale=0.1)),
        "textbook",
    ),
    SeededBug(
        "layer_norm_applies_weight_twice",
        "input",
        LayerNormWeighsTwice.apply,
        LayerNorm.apply,
        lambda make: (make(3, 4), _constant(make, 1, 4), _constant(make, 0, 4)),
        "Megatron-LM#6859",
    ),
    SeededBug(
        "rms_norm_forgets_weight",
        "input",
        RmsNormForgetsWeight.apply,
        RmsNorm.apply,
        lambda make: (make(3, 4), _constant(make, 1, 4)),
        "textbook",
    ),
    SeededBug(
        "rms_norm_forgets_eps",
        "input",
        RmsNormForgetsEps.apply,
        RmsNorm.apply,
        lambda make: (make(3, 4), make(4)),
        "textbook",
    ),
    SeededBug(
        "layer_norm_recovers_normal_without_bias",
        "input",
        LayerNormFromOutput.apply,
        LayerNorm.apply,
        lambda make: (make(3, 4), _constant(make, 1, 4), _constant(make, 0, 4)),
        "textbook",
    ),
    SeededBug(
        "shift_scale_forgets_shift",
        "input",
        ShiftScaleForgetsShift.apply,
        ShiftScale.apply,
        lambda make: (make(3, 4), _constant(make, 0, 4), make(4)),
        "textbook",
    ),
    SeededBug(
        "gated_cell_forgets_previous_state",
        "input",
        GatedCellForgetsState.apply,
        GatedCell.apply,
        lambda make: (make(3, 4), make(3, 4), _constant(make, 0, 3, 4)),
        "textbook",
    ),
    SeededBug(
        "segment_sum_assumes_sorted_segments",
        "input",
        SegmentSumAssumesSorted.apply,
        SegmentSum.apply,
        lambda make: (make(4, 3), torch.tensor([0, 0, 1, 2])),
        "textbook",
    ),
    SeededBug(
        "masked_mean_forgets_mask",
        "input",
        MaskedMeanForgetsMask.apply,
        MaskedMean.apply,
        lambda make: (make(3, 4), torch.ones(3, 4, dtype=torch.bool)),
        "textbook",
    ),
)
