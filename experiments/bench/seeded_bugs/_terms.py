"""Terms: a path through a mean, a norm, a gate or a step in time left out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._layers import (
    Attention,
    BatchNorm,
    CrossEntropy,
    LayerNorm,
    RmsNorm,
    RmsNormByRows,
    Rnn,
    Softmax,
    SwiGlu,
    Swish,
    needed,
    sum_to,
    wide,
)
from ._seeded_bug import SeededBug


class LayerNormMeanConstant(LayerNorm):
    """Treats the mean as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = LayerNorm.backward(ctx, grad_y)
        x_hat, rstd = LayerNorm.normalise(x, ctx.eps)
        gw = wide(grad_y) * wide(weight)
        grad_x = (gw - x_hat * (gw * x_hat).mean(-1, keepdim=True)) * rstd
        return needed(ctx, sum_to(grad_x, x), grad_weight, grad_bias, None)


class LayerNormVarConstant(LayerNorm):
    """Treats the variance as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = LayerNorm.backward(ctx, grad_y)
        _, rstd = LayerNorm.normalise(x, ctx.eps)
        gw = wide(grad_y) * wide(weight)
        grad_x = (gw - gw.mean(-1, keepdim=True)) * rstd
        return needed(ctx, sum_to(grad_x, x), grad_weight, grad_bias, None)


class LayerNormVarSign(LayerNorm):
    """Adds the variance's term, where it is subtracted."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = LayerNorm.backward(ctx, grad_y)
        x_hat, rstd = LayerNorm.normalise(x, ctx.eps)
        gw = wide(grad_y) * wide(weight)
        slope = (gw * x_hat).mean(-1, keepdim=True)
        grad_x = (gw - gw.mean(-1, keepdim=True) + x_hat * slope) * rstd
        return needed(ctx, sum_to(grad_x, x), grad_weight, grad_bias, None)


class LayerNormStatisticsConstant(LayerNorm):
    """Treats the mean and the variance as constants."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = LayerNorm.backward(ctx, grad_y)
        _, rstd = LayerNorm.normalise(x, ctx.eps)
        grad_x = wide(grad_y) * wide(weight) * rstd
        return needed(ctx, sum_to(grad_x, x), grad_weight, grad_bias, None)


class ResidualLayerNorm(LayerNorm):
    """y = x + layer_norm(x)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return x + LayerNorm.forward(x, weight, bias, eps)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, *rest = LayerNorm.backward(ctx, grad_y)
        if grad_x is not None:
            grad_x = grad_x + sum_to(grad_y, grad_x)
        return grad_x, *rest


class ResidualLayerNormWithoutResidual(ResidualLayerNorm):
    """Forgets the residual's own gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return LayerNorm.backward(ctx, grad_y)


class RmsNormConstant(RmsNorm):
    """Treats the mean square as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        rstd = torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + ctx.eps)
        g = wide(grad_y)
        grad_x = (g * wide(weight) * rstd).to(x.dtype)
        return needed(ctx, grad_x, sum_to(g * wide(x) * rstd, weight), None)


class RmsNormSumForMean(RmsNormByRows):
    """Sums where the mean square's term averages."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        rstd = torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + ctx.eps)
        x_hat, g = wide(x) * rstd, wide(grad_y)
        gw = g * wide(weight)
        grad_x = (gw - x_hat * (gw * x_hat).sum(-1, keepdim=True)) * rstd
        return needed(ctx, grad_x.to(x.dtype), sum_to(g * x_hat, weight), None)


class BatchNormVarConstant(BatchNorm):
    """Treats the variance as constant, as in evaluation."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = BatchNorm.backward(ctx, grad_y)
        _, rstd = BatchNorm.normalise(x, ctx.eps)
        gw = wide(grad_y) * BatchNorm.per_channel(weight, x)
        grad_x = (gw - gw.mean(BatchNorm.axes(x), keepdim=True)) * rstd
        return needed(ctx, grad_x.to(x.dtype), grad_weight, grad_bias, None)


class BatchNormAsInEvaluation(BatchNorm):
    """Treats both statistics as constants, as if they were running ones."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = BatchNorm.backward(ctx, grad_y)
        _, rstd = BatchNorm.normalise(x, ctx.eps)
        grad_x = wide(grad_y) * BatchNorm.per_channel(weight, x) * rstd
        return needed(ctx, grad_x.to(x.dtype), grad_weight, grad_bias, None)


class BatchNormOverTheBatchAlone(BatchNorm):
    """Averages the correction terms over the batch, and forgets the places."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = BatchNorm.backward(ctx, grad_y)
        x_hat, rstd = BatchNorm.normalise(x, ctx.eps)
        gw = wide(grad_y) * BatchNorm.per_channel(weight, x)
        mean, slope = gw.mean(0, keepdim=True), (gw * x_hat).mean(0, keepdim=True)
        grad_x = (gw - mean - x_hat * slope) * rstd
        return needed(ctx, grad_x.to(x.dtype), grad_weight, grad_bias, None)


class SoftmaxLikeSigmoid(Softmax):
    """Keeps the diagonal y (1 - y): the sum over the other classes is missing."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * wide(y) * (1 - wide(y))).to(y.dtype), None


class SoftmaxByHand(Softmax):
    """Softmax written out: exponentials over their sum."""

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        e = torch.exp(wide(x) - wide(x).amax(dim, keepdim=True))
        return (e / e.sum(dim, keepdim=True)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Softmax.backward(ctx, grad_y)


class SoftmaxSumConstant(SoftmaxByHand):
    """Treats the sum of the exponentials as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return grad_y * y, None


class LogSoftmax(Function):
    """y = x - logsumexp(x) over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = (wide(x) - wide(x).logsumexp(-1, keepdim=True)).to(x.dtype)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g = wide(grad_y)
        p = torch.softmax(wide(x), -1)
        return (g - p * g.sum(-1, keepdim=True)).to(x.dtype)


class LogSoftmaxNormaliserConstant(LogSoftmax):
    """Treats the normaliser as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y.clone()


class LogSoftmaxWithoutSum(LogSoftmax):
    """Subtracts p g, where it is p Σ g."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g = wide(grad_y)
        return (g - torch.softmax(wide(x), -1) * g).to(x.dtype)


class CosineSimilarity(Function):
    """x·y / (|x| |y|) over the last axis."""

    generate_vmap_rule = True

    @staticmethod
    def inverse_norm(x: Tensor, eps: float) -> Tensor:
        """Returns 1 / sqrt(Σx² + eps)."""
        return torch.rsqrt(wide(x).square().sum(-1, keepdim=True) + eps)

    @staticmethod
    def forward(x: Tensor, y: Tensor, eps: float) -> Tensor:
        norms = CosineSimilarity.inverse_norm(x, eps)
        norms = norms * CosineSimilarity.inverse_norm(y, eps)
        return ((wide(x) * wide(y)).sum(-1) * norms.squeeze(-1)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, y, ctx.eps = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx: Any, grad_c: Tensor) -> Any:
        x, y = ctx.saved_tensors
        g = wide(grad_c).unsqueeze(-1)
        rx = CosineSimilarity.inverse_norm(x, ctx.eps)
        ry = CosineSimilarity.inverse_norm(y, ctx.eps)
        x_hat, y_hat = wide(x) * rx, wide(y) * ry
        c = (x_hat * y_hat).sum(-1, keepdim=True)
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            grad_x = sum_to(g * rx * (y_hat - c * x_hat), x)
        if ctx.needs_input_grad[1]:
            grad_y = sum_to(g * ry * (x_hat - c * y_hat), y)
        return grad_x, grad_y, None


class CosineSimilarityNormsConstant(CosineSimilarity):
    """Treats both norms as constants."""

    @staticmethod
    def backward(ctx: Any, grad_c: Tensor) -> Any:
        x, y = ctx.saved_tensors
        g = wide(grad_c).unsqueeze(-1)
        rx = CosineSimilarity.inverse_norm(x, ctx.eps)
        ry = CosineSimilarity.inverse_norm(y, ctx.eps)
        g = g * rx * ry
        return needed(ctx, sum_to(g * wide(y), x), sum_to(g * wide(x), y), None)


class Normalise(Function):
    """y = x / sqrt(Σx² + eps), in place on a copy of `.data`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.eps = eps
        y = wide(x.data).clone()
        y.mul_(torch.rsqrt(y.square().sum(-1, keepdim=True).add_(eps)))
        return y.to(x.dtype)

    @staticmethod
    def parts(ctx: Any) -> tuple[Tensor, Tensor]:
        """Returns y and the inverse norm."""
        (x,) = ctx.saved_tensors
        scale = torch.rsqrt(wide(x).square().sum(-1, keepdim=True) + ctx.eps)
        return wide(x) * scale, scale

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        y, scale = Normalise.parts(ctx)
        g = wide(grad_y)
        grad_x = (g - y * (g * y).sum(-1, keepdim=True)) * scale
        return grad_x.to(grad_y.dtype), None


class NormaliseNormConstant(Normalise):
    """Treats the norm as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        _, scale = Normalise.parts(ctx)
        return (wide(grad_y) * scale).to(grad_y.dtype), None


class AbsMaxScale(Function):
    """y = x / (max|x| + eps) over the last axis, as before a quantisation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.eps = eps
        return (wide(x) / (wide(x).abs().amax(-1, keepdim=True) + eps)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g, size = wide(grad_y), wide(x).abs()
        top = size.amax(-1, keepdim=True)
        hit = (size == top).to(g.dtype)
        share = hit / hit.sum(-1, keepdim=True) * wide(x).sign()
        scale = 1 / (top + ctx.eps)
        slope = (g * wide(x)).sum(-1, keepdim=True) * scale * scale
        return (g * scale - slope * share).to(x.dtype), None


class AbsMaxScaleConstant(AbsMaxScale):
    """Treats the largest magnitude as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        top = wide(x).abs().amax(-1, keepdim=True)
        return (wide(grad_y) / (top + ctx.eps)).to(x.dtype), None


class AttentionWithoutRowSums(Attention):
    """Treats the softmax's denominator as constant: no rows of p · dp subtracted."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        g, p = wide(grad_y), Attention.weights(q, k)
        grad_scores = p * (g @ wide(v).transpose(-2, -1))
        return Attention.from_scores(ctx, g, p, grad_scores)


class Softsign(Function):
    """y = x / (1 + |x|)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return (wide(x) / (1 + wide(x).abs())).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) / (1 + wide(x).abs()).square()).to(x.dtype)


class SoftsignDenominatorConstant(Softsign):
    """Forgets the second half of the quotient rule."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) / (1 + wide(x).abs())).to(x.dtype)


class SwishGateConstant(Swish):
    """Forgets the second half of the product rule: sigmoid(x) taken as constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * torch.sigmoid(wide(x))).to(x.dtype)


class SwishGateSign(Swish):
    """Subtracts the sigmoid's term, where it is added."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(wide(x))
        return (wide(grad_y) * (s - wide(x) * s * (1 - s))).to(x.dtype)


class Mish(Function):
    """y = x tanh(log(1 + exp(x)))."""

    @staticmethod
    def softplus(x: Tensor) -> Tensor:
        """Returns log(1 + exp(x)), for x of any size."""
        return torch.logaddexp(wide(x), torch.zeros_like(wide(x)))

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (wide(x) * torch.tanh(Mish.softplus(x))).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        t, s = torch.tanh(Mish.softplus(x)), torch.sigmoid(wide(x))
        return (wide(grad_y) * (t + wide(x) * s * (1 - t * t))).to(x.dtype)


class MishWithoutInput(Mish):
    """Forgets the factor x tanh: keeps only the path through the softplus."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        t, s = torch.tanh(Mish.softplus(x)), torch.sigmoid(wide(x))
        return (wide(grad_y) * wide(x) * s * (1 - t * t)).to(x.dtype)


class SwiGluGateConstant(SwiGlu):
    """Differentiates the gate as if its sigmoid were constant."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        s, g = torch.sigmoid(wide(gate)), wide(grad_y)
        grad_gate = sum_to(g * wide(up) * s, gate)
        return needed(ctx, grad_gate, sum_to(g * wide(gate) * s, up))


class GruCell(Function):
    """The pointwise half of a GRU cell: (input gates, hidden gates, h) to h'."""

    @staticmethod
    def forward(ctx: Any, of_x: Tensor, of_h: Tensor, h: Tensor) -> Tensor:
        ctx.save_for_backward(of_x, of_h, h)
        r_x, z_x, n_x = wide(of_x).chunk(3, -1)
        r_h, z_h, n_h = wide(of_h).chunk(3, -1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return ((1 - z) * n + z * wide(h)).to(h.dtype)

    @staticmethod
    def grads(ctx: Any, grad_h: Tensor, through_reset: float, new: float) -> Any:
        """Returns the three gradients, two of their terms scaled."""
        of_x, of_h, h = ctx.saved_tensors
        g = wide(grad_h)
        r_x, z_x, n_x = wide(of_x).chunk(3, -1)
        r_h, z_h, n_h = wide(of_h).chunk(3, -1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        grad_n = g * (1 - z) * (1 - n * n)
        grad_z = g * (wide(h) - new * n) * z * (1 - z)
        grad_r = through_reset * grad_n * n_h * r * (1 - r)
        need_x, need_h, need_state = ctx.needs_input_grad
        return (
            sum_to(torch.cat((grad_r, grad_z, grad_n), -1), of_x) if need_x else None,
            sum_to(torch.cat((grad_r, grad_z, grad_n * r), -1), of_h)
            if need_h
            else None,
            sum_to(g * z, h) if need_state else None,
        )

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> Any:
        return GruCell.grads(ctx, grad_h, 1.0, 1.0)


class GruCellResetConstant(GruCell):
    """Sends nothing back through the reset gate."""

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> Any:
        return GruCell.grads(ctx, grad_h, 0.0, 1.0)


class GruCellUpdateOfStateAlone(GruCell):
    """Forgets that the update gate also scales the candidate, by 1 - z."""

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> Any:
        return GruCell.grads(ctx, grad_h, 1.0, 0.0)


class RnnTruncated(Rnn):
    """Sends nothing back to earlier steps."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Rnn.through_time(ctx, grad_y, 0.0)


class Focal(Function):
    """Focal loss of positives: (1 - p)^gamma · -log p with p = sigmoid(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gamma: float) -> Tensor:
        modulation = torch.sigmoid(-wide(x)) ** gamma
        return (modulation * Mish.softplus(-wide(x))).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.gamma = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        p, q = torch.sigmoid(wide(x)), torch.sigmoid(-wide(x))
        slope = -q - ctx.gamma * p * Mish.softplus(-wide(x))
        return (wide(grad_y) * q**ctx.gamma * slope).to(x.dtype), None


class FocalModulationConstant(Focal):
    """Treats (1 - p)^gamma as a constant weight."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        q = torch.sigmoid(-wide(x))
        return (-wide(grad_y) * q ** (ctx.gamma + 1)).to(x.dtype), None


class CrossEntropyWithoutSmoothing(CrossEntropy):
    """Subtracts the plain one-hot target, where the loss was smoothed."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits, target, weight = ctx.saved_tensors
        wanted, total = CrossEntropy.wanted(
            logits, target, weight, ctx.options[0], smoothing=0.0
        )
        p = torch.softmax(wide(logits), -1)
        rows_grad = p * wanted.sum(-1, keepdim=True) - wanted
        return (wide(grad_loss) * rows_grad / total).to(logits.dtype), *[None] * 5


bugs = (
    SeededBug(
        name="layer_norm_treats_the_mean_as_constant",
        kind="value",
        wrong=LayerNormMeanConstant.apply,
        healthy=LayerNorm.apply,
        inputs=lambda make: (make(3, 4), make(4), make(4), 1e-5),
        source="llm.c#763",
        cause="MissingTerm",
        says=r"mean",
    ),
    SeededBug(
        name="layer_norm_treats_the_variance_as_constant",
        kind="value",
        wrong=LayerNormVarConstant.apply,
        healthy=LayerNorm.apply,
        inputs=lambda make: (make(3, 4), make(4), make(4), 1e-5),
        source="llm.c#763",
        cause="MissingTerm",
        says=r"var|mean|rsqrt|square|std",
    ),
    SeededBug(
        name="layer_norm_variance_term_has_the_wrong_sign",
        kind="value",
        wrong=LayerNormVarSign.apply,
        healthy=LayerNorm.apply,
        inputs=lambda make: (make(3, 5), make(5), make(5), 1e-5),
        source="textbook",
        cause="MissingTerm",
        says=r"var|mean|rsqrt|square|std",
    ),
    SeededBug(
        name="layer_norm_treats_mean_and_variance_as_constants",
        kind="value",
        wrong=LayerNormStatisticsConstant.apply,
        healthy=LayerNorm.apply,
        inputs=lambda make: (make(2, 3, 4), make(4), make(4), 1e-5),
        source="textbook",
        cause="MissingTerm",
        says=r"mean|var|rsqrt|square|std",
    ),
    SeededBug(
        name="residual_layer_norm_forgets_the_residual",
        kind="value",
        wrong=ResidualLayerNormWithoutResidual.apply,
        healthy=ResidualLayerNorm.apply,
        inputs=lambda make: (make(3, 4), make(4), make(4), 1e-5),
        source="textbook",
        cause="MissingTerm",
        says=r"add|\+|residual",
    ),
    SeededBug(
        name="rms_norm_treats_the_mean_square_as_constant",
        kind="value",
        wrong=RmsNormConstant.apply,
        healthy=RmsNorm.apply,
        inputs=lambda make: (make(3, 4), make(4), 1e-6),
        source="textbook",
        cause="MissingTerm",
        says=r"mean|rsqrt|square",
    ),
    SeededBug(
        name="rms_norm_sums_where_the_term_is_a_mean",
        kind="value",
        wrong=RmsNormSumForMean.apply,
        healthy=RmsNormByRows.apply,
        inputs=lambda make: (make(3, 4), make(4), 1e-6),
        source="textbook",
    ),
    SeededBug(
        name="batch_norm_treats_the_variance_as_constant",
        kind="value",
        wrong=BatchNormVarConstant.apply,
        healthy=BatchNorm.apply,
        inputs=lambda make: (make(4, 3, 2), make(3), make(3), 1e-5),
        source="textbook",
        cause="MissingTerm",
        says=r"var|sqrt|std|div",
    ),
    SeededBug(
        name="batch_norm_backward_as_in_evaluation",
        kind="value",
        wrong=BatchNormAsInEvaluation.apply,
        healthy=BatchNorm.apply,
        inputs=lambda make: (make(5, 3), make(3), make(3), 1e-5),
        source="textbook",
        cause="MissingTerm",
        says=r"mean|var|sqrt|std",
    ),
    SeededBug(
        name="batch_norm_terms_averaged_over_the_batch_alone",
        kind="value",
        wrong=BatchNormOverTheBatchAlone.apply,
        healthy=BatchNorm.apply,
        inputs=lambda make: (make(4, 3, 3), make(3), make(3), 1e-5),
        source="textbook",
    ),
    SeededBug(
        name="softmax_backward_like_sigmoid",
        kind="value",
        wrong=SoftmaxLikeSigmoid.apply,
        healthy=Softmax.apply,
        inputs=lambda make: (make(3, 4), -1),
        source="textbook",
        cause="Unreduced",
        says=r"sum|dim|axis|reduc",
    ),
    SeededBug(
        name="softmax_treats_the_sum_as_constant",
        kind="value",
        wrong=SoftmaxSumConstant.apply,
        healthy=SoftmaxByHand.apply,
        inputs=lambda make: (make(3, 4), 1),
        source="textbook",
        cause="MissingTerm",
        says=r"sum|div",
    ),
    SeededBug(
        name="log_softmax_treats_the_normaliser_as_constant",
        kind="value",
        wrong=LogSoftmaxNormaliserConstant.apply,
        healthy=LogSoftmax.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="MissingTerm",
        says=r"logsumexp|sub",
    ),
    SeededBug(
        name="log_softmax_does_not_sum_the_gradient",
        kind="value",
        wrong=LogSoftmaxWithoutSum.apply,
        healthy=LogSoftmax.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="Unreduced",
        says=r"sum|dim|axis|reduc",
    ),
    SeededBug(
        name="cosine_similarity_treats_the_norms_as_constants",
        kind="value",
        wrong=CosineSimilarityNormsConstant.apply,
        healthy=CosineSimilarity.apply,
        inputs=lambda make: (make(3, 4), make(3, 4), 1e-6),
        source="textbook",
        cause="MissingTerm",
        says=r"norm|rsqrt|sum|square|mul",
    ),
    SeededBug(
        name="normalise_treats_the_norm_as_constant",
        kind="value",
        wrong=NormaliseNormConstant.apply,
        healthy=Normalise.apply,
        inputs=lambda make: (make(3, 4), 1e-6),
        source="textbook",
        cause="MissingTerm",
        says="sum|norm",
    ),
    SeededBug(
        name="abs_max_scale_treats_the_maximum_as_constant",
        kind="value",
        wrong=AbsMaxScaleConstant.apply,
        healthy=AbsMaxScale.apply,
        inputs=lambda make: (make(3, 4), 1e-6),
        source="textbook",
        cause="MissingTerm",
        says=r"max|abs|div",
    ),
    SeededBug(
        name="attention_forgets_the_row_sums",
        kind="value",
        wrong=AttentionWithoutRowSums.apply,
        healthy=Attention.apply,
        inputs=lambda make: (make(2, 3, 4), make(2, 5, 4), make(2, 5, 4)),
        source="textbook",
        cause="MissingTerm",
        says=r"sum|softmax|div",
    ),
    SeededBug(
        name="softsign_forgets_half_the_quotient_rule",
        kind="value",
        wrong=SoftsignDenominatorConstant.apply,
        healthy=Softsign.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="MissingTerm",
        says=r"abs|div|add",
    ),
    SeededBug(
        name="swish_forgets_half_the_product_rule",
        kind="value",
        wrong=SwishGateConstant.apply,
        healthy=Swish.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="MissingTerm",
        says=r"sigmoid",
    ),
    SeededBug(
        name="swish_sigmoid_term_has_the_wrong_sign",
        kind="value",
        wrong=SwishGateSign.apply,
        healthy=Swish.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="MissingTerm",
        says=r"sigmoid",
    ),
    SeededBug(
        name="mish_keeps_the_softplus_path_alone",
        kind="value",
        wrong=MishWithoutInput.apply,
        healthy=Mish.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="MissingTerm",
        says=r"mul|\*|product",
    ),
    SeededBug(
        name="swiglu_treats_the_sigmoid_as_constant",
        kind="value",
        wrong=SwiGluGateConstant.apply,
        healthy=SwiGlu.apply,
        inputs=lambda make: (make(3, 4), make(3, 4)),
        source="textbook",
        cause="MissingTerm",
        says=r"sigmoid",
    ),
    SeededBug(
        name="gru_cell_reset_gate_gets_nothing",
        kind="value",
        wrong=GruCellResetConstant.apply,
        healthy=GruCell.apply,
        inputs=lambda make: (make(2, 9), make(2, 9), make(2, 3)),
        source="textbook",
        cause="MissingTerm",
        says=r"sigmoid|mul|add|chunk|\br\b",
    ),
    SeededBug(
        name="gru_cell_update_gate_forgets_the_candidate",
        kind="value",
        wrong=GruCellUpdateOfStateAlone.apply,
        healthy=GruCell.apply,
        inputs=lambda make: (make(2, 9), make(2, 9), make(2, 3)),
        source="textbook",
        cause="MissingTerm",
        says=r"sub|1 ?[-−]|mul|\bz\b",
    ),
    SeededBug(
        name="rnn_truncates_the_recurrent_path",
        kind="value",
        wrong=RnnTruncated.apply,
        healthy=Rnn.apply,
        inputs=lambda make: (make(2, 3, 4), make(4, 4)),
        source="textbook",
        cause="MissingTerm",
        says=r"matmul|mm|@|tanh|recurr|step",
    ),
    SeededBug(
        name="focal_loss_treats_the_modulation_as_constant",
        kind="value",
        wrong=FocalModulationConstant.apply,
        healthy=Focal.apply,
        inputs=lambda make: (make(3, 4), 2.0),
        source="textbook",
        cause="MissingTerm",
        says=r"pow|\*\*|sigmoid",
    ),
    SeededBug(
        name="cross_entropy_forgets_label_smoothing",
        kind="value",
        wrong=CrossEntropyWithoutSmoothing.apply,
        healthy=CrossEntropy.apply,
        inputs=lambda make: (
            make(4, 5),
            torch.tensor([1, 0, 4, 2]),
            None,
            -100,
            0.2,
            "mean",
        ),
        source="textbook",
        cause="WrongArgument",
        says="smoothing = 0",
    ),
)
