"""Operands: a factor twice or not at all, the wrong tensor, a gradient not given."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ._layers import (
    Conv1d,
    CrossEntropy,
    LayerNorm,
    LinearCrossEntropy,
    LstmCell,
    MaxPool1d,
    RmsNorm,
    SwiGlu,
    needed,
    sum_to,
    wide,
)
from ._seeded_bug import SeededBug


class RmsNormWeightTwice(RmsNorm):
    """Applies the weight twice in the mean square's term alone."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        rstd = torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + ctx.eps)
        x_hat, g = wide(x) * rstd, wide(grad_y)
        gw = g * wide(weight)
        slope = (gw * wide(weight) * x_hat).mean(-1, keepdim=True)
        grad_x = ((gw - x_hat * slope) * rstd).to(x.dtype)
        return needed(ctx, grad_x, sum_to(g * x_hat, weight), None)


class ChannelScale(Function):
    """y = x weight + bias."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addcmul(wide(bias), wide(x), wide(weight)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def grads(ctx: Any, grad_y: Tensor, factor: Tensor) -> Any:
        """Returns the gradients, x's being the one of y times `factor`."""
        x, weight, bias = ctx.saved_tensors
        g = wide(grad_y)
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            sum_to(g * factor, x) if need_x else None,
            sum_to(g * wide(x), weight) if need_weight else None,
            sum_to(g, bias) if need_bias else None,
        )

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return ChannelScale.grads(ctx, grad_y, wide(ctx.saved_tensors[1]))


class ChannelScaleWeightTwice(ChannelScale):
    """Applies the weight twice."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        weight = wide(ctx.saved_tensors[1])
        return ChannelScale.grads(ctx, grad_y, weight * weight)


class ChannelScaleWithoutWeight(ChannelScale):
    """Does not apply the weight to the gradient of x."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        weight = wide(ctx.saved_tensors[1])
        return ChannelScale.grads(ctx, grad_y, torch.ones_like(weight))


class Tanh(Function):
    """y = tanh(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * (1 - wide(y).square())).to(y.dtype)


class TanhOfSavedInput(Tanh):
    """Saves x and uses it as if it were y."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)


class Sigmoid(Function):
    """y = 1 / (1 + exp(-x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * wide(y) * (1 - wide(y))).to(y.dtype)


class SigmoidOutputTwice(Sigmoid):
    """Multiplies by y once too often."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * wide(y).square() * (1 - wide(y))).to(y.dtype)


class Exp(Function):
    """y = exp(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return grad_y * y


class ExpWithoutOutput(Exp):
    """Hands the gradient on without multiplying by y."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y.clone()


class Cube(Function):
    """y = x³."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (3 * wide(grad_y) * wide(x).square()).to(x.dtype)


class CubeExponentKept(Cube):
    """Writes 3 x³, with the exponent not lowered."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (3 * wide(grad_y) * wide(x) ** 3).to(x.dtype)


class Celu(Function):
    """y = x for x > 0, else alpha (exp(x / alpha) - 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return F.celu(x, alpha)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        slope = torch.exp(wide(x).clamp(max=0) / ctx.alpha)
        return (wide(grad_y) * slope).to(x.dtype), None


class CeluLikeElu(Celu):
    """Takes elu's alpha exp(x) for the negative side."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        slope = ctx.alpha * torch.exp(wide(x).clamp(max=0))
        slope = torch.where(x > 0, torch.ones_like(slope), slope)
        return (wide(grad_y) * slope).to(x.dtype), None


class Prelu(Function):
    """y = x for x > 0, else slope x, with one slope per last-axis channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return torch.where(x > 0, wide(x), wide(slope) * wide(x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, slope = ctx.saved_tensors
        g, positive = wide(grad_y), x > 0
        grad_x = grad_slope = None
        if ctx.needs_input_grad[0]:
            grad_x = sum_to(torch.where(positive, g, g * wide(slope)), x)
        if ctx.needs_input_grad[1]:
            grad_slope = sum_to((g * wide(x)).masked_fill(positive, 0), slope)
        return grad_x, grad_slope


class PreluSlopeOfAllInputs(Prelu):
    """Counts positive inputs in the gradient of the slope too."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, slope = ctx.saved_tensors
        g = wide(grad_y)
        grad_x = torch.where(x > 0, g, g * wide(slope))
        return needed(ctx, sum_to(grad_x, x), sum_to(g * wide(x), slope))


class LayerNormParametersSwapped(LayerNorm):
    """Returns the gradients of weight and bias in the other order."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        grad_x, *_ = LayerNorm.backward(ctx, grad_y)
        x_hat, _ = LayerNorm.normalise(x, ctx.eps)
        grad_weight = sum_to(wide(grad_y) * x_hat, weight)
        return needed(ctx, grad_x, sum_to(wide(grad_y), bias), grad_weight, None)


class LayerNormWithoutWeightGrad(LayerNorm):
    """Returns None for the weight, which then never learns."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, _, grad_bias, _ = LayerNorm.backward(ctx, grad_y)
        return grad_x, None, grad_bias, None


class LayerNormWithoutEps(LayerNorm):
    """Leaves eps out of the standard deviation on the way back."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        ctx.eps = 0.0
        return LayerNorm.backward(ctx, grad_y)


class Conv1dBiasGradZero(Conv1d):
    """Returns zeros for the bias."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, _, _ = Conv1d.backward(ctx, grad_y)
        zeros = torch.zeros_like(ctx.saved_tensors[2])
        return needed(ctx, grad_x, grad_weight, zeros, None)


class Product(Function):
    """y = a b."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a * b

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        return (
            sum_to(grad_y * b.conj(), a) if ctx.needs_input_grad[0] else None,
            sum_to(grad_y * a.conj(), b) if ctx.needs_input_grad[1] else None,
        )


class ProductOwnFactor(Product):
    """Multiplies by the input itself, where it is the other one."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        return needed(ctx, sum_to(grad_y * a, a), sum_to(grad_y * b, b))


class ProductWithoutConj(Product):
    """Does not conjugate the other factor."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        return needed(ctx, sum_to(grad_y * b, a), sum_to(grad_y * a, b))


class MatMul(Function):
    """y = A B of two matrices, complex ones too."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.mm(wide(a), wide(b)).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        need_a, need_b = ctx.needs_input_grad
        return (
            torch.mm(wide(grad_y), wide(b).mH).to(a.dtype) if need_a else None,
            torch.mm(wide(a).mH, wide(grad_y)).to(b.dtype) if need_b else None,
        )


class MatMulWithoutConj(MatMul):
    """Transposes without conjugating."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        g, a, b = wide(grad_y), wide(a), wide(b)
        return needed(ctx, torch.mm(g, b.t()), torch.mm(a.t(), g))


class Where(Function):
    """y = a where the mask is true, else b."""

    @staticmethod
    def forward(ctx: Any, mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(mask, a, b)
        return torch.where(mask, a, b)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        mask, a, b = ctx.saved_tensors
        _, need_a, need_b = ctx.needs_input_grad
        return (
            None,
            sum_to(grad_y.masked_fill(~mask, 0), a) if need_a else None,
            sum_to(grad_y.masked_fill(mask, 0), b) if need_b else None,
        )


class WhereInverted(Where):
    """Has the mask the wrong way round."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        mask, a, b = ctx.saved_tensors
        of_a, of_b = grad_y.masked_fill(mask, 0), grad_y.masked_fill(~mask, 0)
        return needed(ctx, None, sum_to(of_a, a), sum_to(of_b, b))


class MaskedFill(Function):
    """y = x with a value where the mask is true, scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, value: float) -> Tensor:
        ctx.save_for_backward(x, mask)
        y = (x * torch.ones_like(mask, dtype=x.dtype)).contiguous()
        y[mask.expand_as(y)] = value
        return y.mul_(2)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, mask = ctx.saved_tensors
        return sum_to(2 * grad_y.masked_fill(mask, 0), x), None, None


class MaskedFillLeaks(MaskedFill):
    """Lets the gradient of filled places through."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return sum_to(2 * grad_y, ctx.saved_tensors[0]), None, None


class SquareNormalise(Function):
    """y = x / sqrt(mean(x²) + eps): RMS without a weight."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: float) -> Tensor:
        return (wide(x) * SquareNormalise.scale(x, eps)).to(x.dtype)

    @staticmethod
    def scale(x: Tensor, eps: float) -> Tensor:
        """Returns 1 / sqrt(mean(x²) + eps)."""
        return torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.eps = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        scale, g = SquareNormalise.scale(x, ctx.eps), wide(grad_y)
        x_hat = wide(x) * scale
        slope = (g * x_hat).mean(-1, keepdim=True)
        return ((g - x_hat * slope) * scale).to(x.dtype), None


class SquareNormaliseWithoutEps(SquareNormalise):
    """Leaves eps out on the way back."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        ctx.eps = 0.0
        return SquareNormalise.backward(ctx, grad_y)


class Gelu(Function):
    """y = x Φ(x), with the error function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        density = torch.exp(-0.5 * wide(x).square()) / math.sqrt(2 * math.pi)
        share = 0.5 * torch.erfc(-wide(x) / math.sqrt(2))
        return (wide(grad_y) * (share + wide(x) * density)).to(x.dtype)


class GeluTanh(Function):
    """y = x (1 + tanh(sqrt(2/π) (x + c x³))) / 2, c = 0.044715."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x, approximate="tanh")

    @staticmethod
    def slope(x: Tensor, c: float) -> Tensor:
        """Returns the derivative of the approximation with the constant `c`."""
        k, square = math.sqrt(2 / math.pi), wide(x).square()
        t = torch.tanh(k * wide(x) * (1 + c * square))
        inner = k * (1 + 3 * c * square)
        return 0.5 * (1 + t) + 0.5 * wide(x) * (1 - t * t) * inner

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * GeluTanh.slope(x, 0.044715)).to(x.dtype)


class GeluTanhRoughConstant(GeluTanh):
    """Takes 0.0447 for 0.044715."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * GeluTanh.slope(x, 0.0447)).to(x.dtype)


class GeluWithTanhBackward(Gelu):
    """Differentiates the tanh approximation, where the forward is exact."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * GeluTanh.slope(x, 0.044715)).to(x.dtype)


class Huber(Function):
    """d²/2 for |d| ≤ delta, else delta (|d| - delta/2), with d = x - target."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, delta: float) -> Tensor:
        ctx.save_for_backward(x, target)
        ctx.delta = delta
        d = wide(x) - wide(target)
        inside = d.clamp(-delta, delta)
        return (inside * (d - 0.5 * inside)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, target = ctx.saved_tensors
        d = wide(x) - wide(target)
        grad = wide(grad_y) * d.clamp(-ctx.delta, ctx.delta)
        return (
            sum_to(grad, x) if ctx.needs_input_grad[0] else None,
            sum_to(-grad, target) if ctx.needs_input_grad[1] else None,
            None,
        )


class HuberUnitDelta(Huber):
    """Clamps to 1 whatever delta is: smooth L1."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, target = ctx.saved_tensors
        grad = wide(grad_y) * (wide(x) - wide(target)).clamp(-1, 1)
        return needed(ctx, sum_to(grad, x), sum_to(-grad, target), None)


class BinaryCrossEntropy(Function):
    """Binary cross entropy of logits, with a weight on the positives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, weight: float) -> Tensor:
        ctx.save_for_backward(x, target)
        ctx.weight = weight
        zero, t = torch.zeros_like(wide(x)), target.to(wide(x).dtype)
        miss, alarm = torch.logaddexp(zero, -wide(x)), torch.logaddexp(zero, wide(x))
        return (weight * t * miss + (1 - t) * alarm).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, target = ctx.saved_tensors
        p, q = torch.sigmoid(wide(x)), torch.sigmoid(-wide(x))
        t = target.to(p.dtype)
        grad = wide(grad_y) * ((1 - t) * p - ctx.weight * t * q)
        return sum_to(grad, x), None, None


class BinaryCrossEntropyUnweighted(BinaryCrossEntropy):
    """Subtracts the target from p, and forgets the weight on the positives."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, target = ctx.saved_tensors
        p = torch.sigmoid(wide(x))
        return sum_to(wide(grad_y) * (p - target.to(p.dtype)), x), None, None


class CrossEntropyWithoutClassWeights(CrossEntropy):
    """Leaves the class weights out of the rows, but divides by their sum."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits, target, weight = ctx.saved_tensors
        wanted, _ = CrossEntropy.wanted(logits, target, None, *ctx.options)
        _, total = CrossEntropy.wanted(logits, target, weight, *ctx.options)
        rows_grad = torch.softmax(wide(logits), -1) - wanted
        return (wide(grad_loss) * rows_grad / total).to(logits.dtype), *[None] * 5


class CrossEntropyIgnoredRowsLearn(CrossEntropy):
    """Leaves p in the rows of ignored targets, where the gradient is zero."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits, target, weight = ctx.saved_tensors
        wanted, total = CrossEntropy.wanted(logits, target, weight, *ctx.options)
        rows_grad = torch.softmax(wide(logits), -1) - wanted
        return (wide(grad_loss) * rows_grad / total).to(logits.dtype), *[None] * 5


class Embedding(Function):
    """Rows of a table; the row `padding` gets no gradient, and reads as zeros."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, table: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(index, table)
        ctx.padding = padding
        y = table[index]
        y[index == padding] = 0
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        index, table = ctx.saved_tensors
        g = wide(grad_y).masked_fill((index == ctx.padding).unsqueeze(-1), 0)
        flat = g.reshape(-1, table.shape[-1])
        total = torch.zeros_like(wide(table)).index_add(0, index.reshape(-1), flat)
        return None, total.to(table.dtype), None


class EmbeddingPaddingLearns(Embedding):
    """Gives the padding row its gradient too."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        index, table = ctx.saved_tensors
        flat = wide(grad_y).reshape(-1, table.shape[-1])
        total = torch.zeros_like(wide(table)).index_add(0, index.reshape(-1), flat)
        return None, total.to(table.dtype), None


class LstmCellGatesMixedUp(LstmCell):
    """Hands c the input gate's share, where the forget gate let it through."""

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> Any:
        i, _, _, o, t = LstmCell.gates(ctx)
        grad_gates, _ = LstmCell.backward(ctx, grad_h, grad_c)
        gc = wide(grad_c) + wide(grad_h) * o * (1 - t * t)
        return needed(ctx, grad_gates, sum_to(gc * i, ctx.saved_tensors[1]))


class LinearCrossEntropyLastChunk(LinearCrossEntropy):
    """Overwrites the weight's gradient in each chunk, where it adds up."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, weight, target = ctx.saved_tensors
        grad_x, grad_weight, _ = LinearCrossEntropy.backward(ctx, grad_loss)
        for i in range(0, len(x), 2):
            some = slice(i, i + 2)
            d = LinearCrossEntropy.logits_grad(x[some], weight, target[some])
            d = d * wide(grad_loss)[some].unsqueeze(-1)
            grad_weight = (d.t() @ wide(x[some])).to(weight.dtype)
        return needed(ctx, grad_x, grad_weight, None)


class GroupNorm(Function):
    """Normalises groups of channels, axis 1, of each sample; no weight."""

    @staticmethod
    def normalise(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
        """Returns groups of normalised numbers, (n, groups, ...), and 1 / std."""
        grouped = wide(x).unflatten(1, (groups, x.shape[1] // groups)).flatten(2)
        centred = grouped - grouped.mean(-1, keepdim=True)
        rstd = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
        return centred * rstd, rstd

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.groups, ctx.eps = groups, eps
        return F.group_norm(x, groups, eps=eps)

    @staticmethod
    def grad_x(ctx: Any, grad_y: Tensor, x_hat: Tensor, rstd: Tensor) -> Any:
        """Returns the gradient of x from the statistics given."""
        g = wide(grad_y).reshape(x_hat.shape)
        mean, slope = g.mean(-1, keepdim=True), (g * x_hat).mean(-1, keepdim=True)
        grad_x = (g - mean - x_hat * slope) * rstd
        return grad_x.reshape(grad_y.shape).to(grad_y.dtype), None, None

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        x_hat, rstd = GroupNorm.normalise(x, ctx.groups, ctx.eps)
        return GroupNorm.grad_x(ctx, grad_y, x_hat, rstd)


class GroupNormFirstGroup(GroupNorm):
    """Divides every group by the standard deviation of the first."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        x_hat, rstd = GroupNorm.normalise(x, ctx.groups, ctx.eps)
        return GroupNorm.grad_x(ctx, grad_y, x_hat, rstd[:, :1])


class MaxPool1dOverwrites(MaxPool1d):
    """Writes the gradient to each maximum, where overlapping windows add up."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        padded = grad_y.new_zeros(ctx.shape).scatter(-1, index, grad_y)
        return padded.narrow(-1, ctx.padding, ctx.length), None, None, None


class CubicNorm(Function):
    """(Σ |x|³)^(1/3) over the last axis."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(wide(x), 3, -1).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def ratio(ctx: Any) -> Tensor:
        """Returns x over its norm, zero where the norm is."""
        x, norm = ctx.saved_tensors
        norm = wide(norm).unsqueeze(-1)
        return wide(x) / norm.masked_fill(norm == 0, 1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        ratio = CubicNorm.ratio(ctx)
        grad_x = wide(grad_y).unsqueeze(-1) * ratio * ratio.abs()
        return grad_x.to(grad_y.dtype)


class CubicNormWithoutSign(CubicNorm):
    """Squares, where x |x| keeps the sign."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x = wide(grad_y).unsqueeze(-1) * CubicNorm.ratio(ctx).square()
        return grad_x.to(grad_y.dtype)


class LogSumExp(Function):
    """log Σ exp(x) over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.logsumexp(x, -1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        p = torch.softmax(wide(x), -1)
        return (wide(grad_y).unsqueeze(-1) * p).to(x.dtype)


class LogSumExpUnnormalised(LogSumExp):
    """Takes exp(x - max) for the softmax: the sum is missing."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        e = torch.exp(wide(x) - wide(x).amax(-1, keepdim=True))
        return (wide(grad_y).unsqueeze(-1) * e).to(x.dtype)


class SwiGluSwapped(SwiGlu):
    """Returns the gradients of gate and up in the other order."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        s = torch.sigmoid(wide(gate))
        g, silu = wide(grad_y), wide(gate) * s
        grad_gate = sum_to(g * wide(up) * (s + silu * (1 - s)), up)
        return needed(ctx, sum_to(g * silu, gate), grad_gate)


class Lerp(Function):
    """y = a + t (b - a)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, t)
        return torch.lerp(wide(a), wide(b), wide(t)).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b, t = ctx.saved_tensors
        g, (need_a, need_b, need_t) = wide(grad_y), ctx.needs_input_grad
        return (
            sum_to(g * (1 - wide(t)), a) if need_a else None,
            sum_to(g * wide(t), b) if need_b else None,
            sum_to(g * (wide(b) - wide(a)), t) if need_t else None,
        )


class LerpWeightGradZero(Lerp):
    """Returns zeros for the interpolation weight, as for a constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_a, grad_b, _ = Lerp.backward(ctx, grad_y)
        return needed(ctx, grad_a, grad_b, torch.zeros_like(ctx.saved_tensors[2]))


def _complex(real: Tensor, imaginary: Tensor) -> Tensor:
    return torch.complex(real.detach(), imaginary.detach()).requires_grad_()


def _fixed(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


bugs = (
    SeededBug(
        name="rms_norm_weight_twice_in_one_term",
        kind="value",
        wrong=RmsNormWeightTwice.apply,
        healthy=RmsNorm.apply,
        inputs=lambda make: (make(3, 4), make(4), 1e-6),
        source="Megatron-LM#6859",
        cause="AlteredTerm",
        says="factor weight too much",
    ),
    SeededBug(
        name="channel_scale_applies_the_weight_twice",
        kind="value",
        wrong=ChannelScaleWeightTwice.apply,
        healthy=ChannelScale.apply,
        inputs=lambda make: (make(3, 4), make(4), make(4)),
        source="textbook",
        cause="ExtraFactor",
        says=r"weight|input 1|\[1\]|args?",
    ),
    SeededBug(
        name="channel_scale_does_not_apply_the_weight",
        kind="value",
        wrong=ChannelScaleWithoutWeight.apply,
        healthy=ChannelScale.apply,
        inputs=lambda make: (make(3, 4), make(4), make(4)),
        source="textbook",
        cause="ExtraFactor",
        says=r"weight|input 1|\[1\]|args?",
    ),
    SeededBug(
        name="tanh_uses_the_input_for_the_output",
        kind="value",
        wrong=TanhOfSavedInput.apply,
        healthy=Tanh.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="WrongOperand",
        says="x is used where the output is meant",
    ),
    SeededBug(
        name="sigmoid_multiplies_by_the_output_twice",
        kind="value",
        wrong=SigmoidOutputTwice.apply,
        healthy=Sigmoid.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="ExtraFactor",
        says=r"output",
    ),
    SeededBug(
        name="exp_does_not_multiply_by_the_output",
        kind="value",
        wrong=ExpWithoutOutput.apply,
        healthy=Exp.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="ExtraFactor",
        says=r"output",
    ),
    SeededBug(
        name="cube_keeps_the_exponent",
        kind="value",
        wrong=CubeExponentKept.apply,
        healthy=Cube.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="ExtraFactor",
        says=r"input|\bx\b",
    ),
    SeededBug(
        name="celu_differentiated_like_elu",
        kind="value",
        wrong=CeluLikeElu.apply,
        healthy=Celu.apply,
        inputs=lambda make: (make(3, 4), 1.7),
        source="textbook",
    ),
    SeededBug(
        name="prelu_slope_gradient_counts_positive_inputs",
        kind="value",
        wrong=PreluSlopeOfAllInputs.apply,
        healthy=Prelu.apply,
        inputs=lambda make: (make(5, 3), make(3)),
        source="textbook",
    ),
    SeededBug(
        name="layer_norm_weight_and_bias_gradients_swapped",
        kind="value",
        wrong=LayerNormParametersSwapped.apply,
        healthy=LayerNorm.apply,
        inputs=lambda make: (make(3, 4), make(4), make(4), 1e-5),
        source="oneflow#6149",
        cause="SwappedInputs",
        says=r"swap|other|weight|bias|input",
    ),
    SeededBug(
        name="layer_norm_weight_gets_none",
        kind="value",
        wrong=LayerNormWithoutWeightGrad.apply,
        healthy=LayerNorm.apply,
        inputs=lambda make: (make(3, 4), make(4), make(4), 1e-5),
        source="unsloth#4533",
        cause="MissingGradient",
        says=r"None|zero|no gradient|missing",
    ),
    SeededBug(
        name="layer_norm_backward_without_eps",
        kind="value",
        wrong=LayerNormWithoutEps.apply,
        healthy=LayerNorm.apply,
        inputs=lambda make: (make(3, 4, scale=0.01), make(4), make(4), 1e-5),
        source="textbook",
        cause="MissingEps",
        says=r"eps|1e-0?5",
    ),
    SeededBug(
        name="square_normalise_backward_without_eps",
        kind="value",
        wrong=SquareNormaliseWithoutEps.apply,
        healthy=SquareNormalise.apply,
        inputs=lambda make: (make(3, 4), 0.05),
        source="textbook",
        cause="MissingEps",
        says=r"eps|0\.05",
    ),
    SeededBug(
        name="conv1d_bias_gets_zeros",
        kind="value",
        wrong=Conv1dBiasGradZero.apply,
        healthy=Conv1d.apply,
        inputs=lambda make: (make(2, 2, 5), make(3, 2, 3), make(3), 1),
        source="candle#2168",
        cause="MissingGradient",
        says=r"None|zero|no gradient|missing",
    ),
    SeededBug(
        name="lerp_weight_gets_zeros",
        kind="value",
        wrong=LerpWeightGradZero.apply,
        healthy=Lerp.apply,
        inputs=lambda make: (make(3, 4), make(3, 4), make(4)),
        source="textbook",
        cause="MissingGradient",
        says=r"None|zero|no gradient|missing",
    ),
    SeededBug(
        name="product_multiplies_by_its_own_input",
        kind="value",
        wrong=ProductOwnFactor.apply,
        healthy=Product.apply,
        inputs=lambda make: (make(3, 4), make(3, 4)),
        source="textbook",
        cause="SwappedInputs",
        says=r"swap|other|input",
    ),
    SeededBug(
        name="swiglu_gate_and_up_gradients_swapped",
        kind="value",
        wrong=SwiGluSwapped.apply,
        healthy=SwiGlu.apply,
        inputs=lambda make: (make(3, 4), make(3, 4)),
        source="textbook",
        cause="SwappedInputs",
        says=r"swap|other|gate|up|input",
    ),
    SeededBug(
        name="where_mask_inverted",
        kind="value",
        wrong=WhereInverted.apply,
        healthy=Where.apply,
        inputs=lambda make: (
            torch.arange(12).view(3, 4) % 3 == 0,
            make(3, 4),
            make(3, 4),
        ),
        source="textbook",
        cause="SwappedInputs",
        says=r"swap|other|input",
    ),
    SeededBug(
        name="complex_product_without_conj",
        kind="value",
        wrong=ProductWithoutConj.apply,
        healthy=Product.apply,
        inputs=lambda make: (
            _complex(make(3, 4), make(3, 4)),
            _complex(make(3, 4), make(3, 4)),
        ),
        source="textbook",
        cause="MissingConjugate",
        says=r"conj",
    ),
    SeededBug(
        name="complex_matmul_without_conj",
        kind="value",
        wrong=MatMulWithoutConj.apply,
        healthy=MatMul.apply,
        inputs=lambda make: (
            _complex(make(3, 2), make(3, 2)),
            _complex(make(2, 4), make(2, 4)),
        ),
        source="tensorflow#4859",
        cause="MissingConjugate",
        says=r"conj",
    ),
    SeededBug(
        name="masked_fill_leaks_through_the_mask",
        kind="value",
        wrong=MaskedFillLeaks.apply,
        healthy=MaskedFill.apply,
        inputs=lambda make: (make(3, 4), torch.arange(12).view(3, 4) % 4 == 1, -3.0),
        source="textbook",
        cause="PartialFactor",
        says="true gradient is 0",
    ),
    SeededBug(
        name="gelu_erf_with_tanh_backward",
        kind="value",
        wrong=GeluWithTanhBackward.apply,
        healthy=Gelu.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
    ),
    SeededBug(
        name="gelu_tanh_rounds_its_constant",
        kind="value",
        wrong=GeluTanhRoughConstant.apply,
        healthy=GeluTanh.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
    ),
    SeededBug(
        name="huber_clamps_to_one_not_delta",
        kind="value",
        wrong=HuberUnitDelta.apply,
        healthy=Huber.apply,
        inputs=lambda make: (make(3, 4), make(3, 4), 0.6),
        source="textbook",
        cause="WrongArgument",
        says="delta = 1",
    ),
    SeededBug(
        name="binary_cross_entropy_forgets_the_positive_weight",
        kind="value",
        wrong=BinaryCrossEntropyUnweighted.apply,
        healthy=BinaryCrossEntropy.apply,
        inputs=lambda make: (make(2, 4), torch.arange(8).view(2, 4) % 3 == 0, 2.5),
        source="textbook",
        cause="WrongArgument",
        says="weight = 1",
    ),
    SeededBug(
        name="cross_entropy_forgets_class_weights",
        kind="value",
        wrong=CrossEntropyWithoutClassWeights.apply,
        healthy=CrossEntropy.apply,
        inputs=lambda make: (
            make(4, 3),
            torch.tensor([1, 0, 2, 2]),
            _fixed(0.5, 2.0, 1.5),
            -100,
            0.0,
            "mean",
        ),
        source="textbook",
    ),
    SeededBug(
        name="cross_entropy_ignored_rows_get_a_gradient",
        kind="value",
        wrong=CrossEntropyIgnoredRowsLearn.apply,
        healthy=CrossEntropy.apply,
        inputs=lambda make: (
            make(5, 3),
            torch.tensor([1, -1, 2, 0, -1]),
            None,
            -1,
            0.0,
            "mean",
        ),
        source="textbook",
        cause="PartialFactor",
        says="true gradient is 0",
    ),
    SeededBug(
        name="embedding_padding_row_gets_a_gradient",
        kind="value",
        wrong=EmbeddingPaddingLearns.apply,
        healthy=Embedding.apply,
        inputs=lambda make: (torch.tensor([[1, 0, 3], [3, 0, 2]]), make(4, 3), 0),
        source="textbook",
        cause="PartialFactor",
        says="true gradient is 0",
    ),
    SeededBug(
        name="lstm_cell_state_through_the_input_gate",
        kind="value",
        wrong=LstmCellGatesMixedUp.apply,
        healthy=LstmCell.apply,
        inputs=lambda make: (make(2, 12), make(2, 3)),
        source="textbook",
    ),
    SeededBug(
        name="linear_cross_entropy_keeps_the_last_chunk",
        kind="value",
        wrong=LinearCrossEntropyLastChunk.apply,
        healthy=LinearCrossEntropy.apply,
        inputs=lambda make: (
            make(5, 3),
            make(4, 3),
            torch.tensor([1, 3, 0, 2, 2]),
        ),
        source="textbook",
        cause="FirstElementOnly",
        says="only index 4 of dim 0",
    ),
    SeededBug(
        name="group_norm_uses_the_first_group_for_all",
        kind="value",
        wrong=GroupNormFirstGroup.apply,
        healthy=GroupNorm.apply,
        inputs=lambda make: (make(2, 4, 3), 2, 1e-5),
        source="textbook",
    ),
    SeededBug(
        name="max_pool1d_overwrites_shared_maxima",
        kind="value",
        wrong=MaxPool1dOverwrites.apply,
        healthy=MaxPool1d.apply,
        inputs=lambda make: (make(2, 3, 7), 3, 1, 1),
        source="cudnn-frontend#385",
    ),
    SeededBug(
        name="cubic_norm_loses_the_sign",
        kind="value",
        wrong=CubicNormWithoutSign.apply,
        healthy=CubicNorm.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="ExtraFactor",
        says=r"sign\(x\)",
    ),
    SeededBug(
        name="logsumexp_backward_is_not_normalised",
        kind="value",
        wrong=LogSumExpUnnormalised.apply,
        healthy=LogSumExp.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
    ),
)
