"""Constant factors: a missing or wrong 1/N, n - 1, sqrt(d), beta, count or sign."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ._layers import Attention, BatchNorm, CrossEntropy, needed, sum_to, wide
from ._seeded_bug import SeededBug

TARGET = torch.tensor([2, 0, 3, -100, 1])


class Softplus(Function):
    """y = log(1 + exp(beta x)) / beta."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, beta: float) -> Tensor:
        scaled = wide(x) * beta
        return (torch.logaddexp(scaled, torch.zeros_like(scaled)) / beta).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.beta = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * torch.sigmoid(ctx.beta * wide(x))).to(x.dtype), None


class SoftplusTimesBeta(Softplus):
    """Multiplies by beta, which the 1 / beta of the forward cancels."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * wide(x))
        return (wide(grad_y) * ctx.beta * s).to(x.dtype), None


class Mse(Function):
    """scale * mean((x - target)²)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, target)
        ctx.scale = scale
        return (scale * (wide(x) - wide(target)).square().mean()).to(x.dtype)

    @staticmethod
    def pair(ctx: Any, grad_x: Tensor) -> Any:
        """Returns both gradients: they differ by their sign alone."""
        x, target = ctx.saved_tensors
        need_x, need_target, _ = ctx.needs_input_grad
        return (
            sum_to(grad_x, x) if need_x else None,
            sum_to(-grad_x, target) if need_target else None,
            None,
        )

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        d = wide(x) - wide(target)
        return Mse.pair(ctx, wide(grad_loss) * (2 * ctx.scale) * d / d.numel())


class MseWithoutMean(Mse):
    """Forgets the 1/N of the mean."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        d = wide(x) - wide(target)
        return Mse.pair(ctx, wide(grad_loss) * (2 * ctx.scale) * d)


class MseWithoutTwo(Mse):
    """Forgets the 2 of the square."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        d = wide(x) - wide(target)
        return Mse.pair(ctx, wide(grad_loss) * ctx.scale * d / d.numel())


class MseMeanOverRows(Mse):
    """Divides by the number of rows, where the forward averages all elements."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        d = wide(x) - wide(target)
        return Mse.pair(ctx, wide(grad_loss) * (2 * ctx.scale) * d / d.shape[0])


class SquaredDistance(Function):
    """Σ (a - b)² over the last axis."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return (wide(a) - wide(b)).square().sum(-1).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad = 2 * wide(grad_y).unsqueeze(-1) * (wide(a) - wide(b))
        return (
            sum_to(grad, a) if ctx.needs_input_grad[0] else None,
            sum_to(-grad, b) if ctx.needs_input_grad[1] else None,
        )


class SquaredDistanceSameSign(SquaredDistance):
    """Gives b the gradient of a, without the minus."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad = 2 * wide(grad_y).unsqueeze(-1) * (wide(a) - wide(b))
        return needed(ctx, sum_to(grad, a), sum_to(grad, b))


class Variance(Function):
    """Unbiased variance of the last axis."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.var(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        centred = wide(x) - wide(x).mean(-1, keepdim=True)
        grad = 2 * wide(grad_y).unsqueeze(-1) * centred / (x.shape[-1] - 1)
        return grad.to(x.dtype)


class VarianceOverN(Variance):
    """Divides by n, where the unbiased variance divides by n - 1."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        centred = wide(x) - wide(x).mean(-1, keepdim=True)
        grad = 2 * wide(grad_y).unsqueeze(-1) * centred / x.shape[-1]
        return grad.to(x.dtype)


class AttentionWithoutScale(Attention):
    """Forgets 1 / sqrt(d) on the way back to q and k."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        g, p = wide(grad_y), Attention.weights(q, k)
        grad_scores = Attention.scores_grad(p, g @ wide(v).transpose(-2, -1))
        return needed(
            ctx,
            sum_to(grad_scores @ wide(k), q),
            sum_to(grad_scores.transpose(-2, -1) @ wide(q), k),
            sum_to(p.transpose(-2, -1) @ g, v),
        )


class CrossEntropyOverAllTokens(CrossEntropy):
    """Divides by all targets, the ignored ones too."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits, target, _ = ctx.saved_tensors
        rows_grad, _ = CrossEntropy.rows_grad(ctx)
        grad = wide(grad_loss) * rows_grad / target.numel()
        return grad.to(logits.dtype), *[None] * 5


class CrossEntropyAlwaysMean(CrossEntropy):
    """Divides by the batch size whatever the reduction is."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits = ctx.saved_tensors[0]
        rows_grad, total = CrossEntropy.rows_grad(ctx)
        return (wide(grad_loss) * rows_grad / total).to(logits.dtype), *[None] * 5


class Distillation(Function):
    """KL(target || softmax(logits / T)), averaged over the rows."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.temperature = temperature
        log_q = torch.log_softmax(wide(logits) / temperature, -1)
        t = target.to(log_q.dtype)
        loss = (torch.xlogy(t, t) - t * log_q).sum() / log_q.shape[0]
        return loss.to(logits.dtype)

    @staticmethod
    def rows_grad(ctx: Any, grad_loss: Tensor) -> Tensor:
        """Returns the gradient of logits / T for the sum over the rows."""
        logits, target = ctx.saved_tensors
        q = torch.softmax(wide(logits) / ctx.temperature, -1)
        t = target.to(q.dtype)
        return wide(grad_loss) * (q * t.sum(-1, keepdim=True) - t)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits = ctx.saved_tensors[0]
        grad = Distillation.rows_grad(ctx, grad_loss) / ctx.temperature
        return sum_to(grad / logits.shape[0], logits), None, None


class DistillationOverElements(Distillation):
    """Divides by the number of elements: `mean` where the forward has `batchmean`."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits = ctx.saved_tensors[0]
        grad = Distillation.rows_grad(ctx, grad_loss) / ctx.temperature
        return (grad / logits.numel()).to(logits.dtype), None, None


class DistillationWithoutTemperature(Distillation):
    """Forgets 1 / T of the chain rule."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        logits = ctx.saved_tensors[0]
        grad = Distillation.rows_grad(ctx, grad_loss) / logits.shape[0]
        return grad.to(logits.dtype), None, None


class Reciprocal(Function):
    """y = 1 / x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.reciprocal()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return -grad_y * y * y


class ReciprocalWithoutMinus(Reciprocal):
    """Forgets the minus of d(1/x) = -1/x²."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return grad_y * y * y


class AvgPool2d(Function):
    """Averages of k by k windows, by torch's own kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.size = size
        return F.avg_pool2d(x, size)

    @staticmethod
    def native(grad_y: Tensor, x: Tensor, size: int, divisor: int) -> Tensor:
        """Returns what torch's kernel computes for windows that divide so."""
        k = [size, size]
        return torch.ops.aten.avg_pool2d_backward.default(
            grad_y, x, k, k, [0, 0], False, True, divisor
        )

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return AvgPool2d.native(grad_y, x, ctx.size, ctx.size**2), None


class AvgPool2dOverOneSide(AvgPool2d):
    """Divides by k, where a window has k² elements."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return AvgPool2d.native(grad_y, x, ctx.size, ctx.size), None


class Gaussian(Function):
    """y = exp(-x²/2), computed by NumPy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        values = wide(x).detach().cpu().numpy()
        y = torch.as_tensor(np.exp(-0.5 * values**2)).to(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return (-wide(grad_y) * wide(x) * wide(y)).to(x.dtype)


class GaussianHalf(Gaussian):
    """Keeps the 1/2 of the exponent, which the 2 of the square cancels."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return (-0.5 * wide(grad_y) * wide(x) * wide(y)).to(x.dtype)


class BatchNormMeanOfWeightGrad(BatchNorm):
    """Averages the weight's gradient over batch and places, where it sums."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias, _ = BatchNorm.backward(ctx, grad_y)
        if grad_weight is not None:
            places = grad_y.numel() // grad_y.shape[1]
            grad_weight = grad_weight / max(places, 1)
        return grad_x, grad_weight, grad_bias, None


class MaskedDropout(Function):
    """y = x mask / keep, for a mask that the caller drew."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, keep: float) -> Tensor:
        ctx.save_for_backward(x, mask)
        ctx.keep = keep
        y = x * mask
        y.div_(keep)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, mask = ctx.saved_tensors
        return sum_to(grad_y * mask / ctx.keep, x), None, None


class MaskedDropoutUnscaled(MaskedDropout):
    """Masks the gradient, and forgets to divide it by the keep rate."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, mask = ctx.saved_tensors
        return sum_to(grad_y * mask, x), None, None


class PowerOfTwo(Function):
    """y = 2ˣ."""

    generate_vmap_rule = True
    LN2 = math.log(2.0)

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.exp2(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * wide(y) * PowerOfTwo.LN2).to(y.dtype)


class PowerOfTwoRoughLn2(PowerOfTwo):
    """Takes 0.6935 for ln 2 = 0.69315: off by 5e-4 of the gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * wide(y) * 0.6935).to(y.dtype)


bugs = (
    SeededBug(
        name="softplus_multiplies_by_beta",
        kind="value",
        wrong=SoftplusTimesBeta.apply,
        healthy=Softplus.apply,
        inputs=lambda make: (make(3, 4), 3.0),
        source="tiny-cuda-nn#130",
        cause="ConstantFactor",
        says=r"3|beta",
    ),
    SeededBug(
        name="mse_forgets_one_over_n",
        kind="value",
        wrong=MseWithoutMean.apply,
        healthy=Mse.apply,
        inputs=lambda make: (make(3, 4), make(3, 4), 1.0),
        source="NemotronParse#3760",
        cause="ConstantFactor",
        says=r"12|1/N|mean|numel",
    ),
    SeededBug(
        name="mse_forgets_the_two",
        kind="value",
        wrong=MseWithoutTwo.apply,
        healthy=Mse.apply,
        inputs=lambda make: (make(3, 4), make(3, 4), 0.7),
        source="textbook",
        cause="ConstantFactor",
        says=r"1/2|0\.5|half|2",
    ),
    SeededBug(
        name="mse_divides_by_rows_not_elements",
        kind="value",
        wrong=MseMeanOverRows.apply,
        healthy=Mse.apply,
        inputs=lambda make: (make(3, 5), make(3, 5), 1.0),
        source="textbook",
        cause="ConstantFactor",
        says=r"5",
    ),
    SeededBug(
        name="tiny_loss_gradient_is_half",
        kind="value",
        wrong=MseWithoutTwo.apply,
        healthy=Mse.apply,
        inputs=lambda make: (make(3, 4), make(3, 4), 1e-7),
        source="textbook",
        cause="ConstantFactor",
        says=r"1/2|0\.5|half|2",
    ),
    SeededBug(
        name="squared_distance_forgets_the_minus_of_b",
        kind="value",
        wrong=SquaredDistanceSameSign.apply,
        healthy=SquaredDistance.apply,
        inputs=lambda make: (make(3, 4), make(3, 4)),
        source="textbook",
        cause="SignFlip",
        says=r"sign|minus|-1|−1|negat",
    ),
    SeededBug(
        name="variance_divides_by_n",
        kind="value",
        wrong=VarianceOverN.apply,
        healthy=Variance.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="ConstantFactor",
        says=r"3/4|0\.75|n ?[-−] ?1",
    ),
    SeededBug(
        name="attention_forgets_one_over_sqrt_d",
        kind="value",
        wrong=AttentionWithoutScale.apply,
        healthy=Attention.apply,
        inputs=lambda make: (make(2, 3, 5), make(2, 4, 5), make(2, 4, 6)),
        source="textbook",
        cause="ConstantFactor",
        says=r"2\.23|sqrt|√|5",
    ),
    SeededBug(
        name="cross_entropy_divides_by_ignored_tokens_too",
        kind="value",
        wrong=CrossEntropyOverAllTokens.apply,
        healthy=CrossEntropy.apply,
        inputs=lambda make: (make(5, 4), TARGET, None, -100, 0.0, "mean"),
        source="miles#2796",
        cause="ConstantFactor",
        says=r"4/5|0\.8|count|ignore",
    ),
    SeededBug(
        name="cross_entropy_sum_divided_by_the_batch",
        kind="value",
        wrong=CrossEntropyAlwaysMean.apply,
        healthy=CrossEntropy.apply,
        inputs=lambda make: (make(5, 4), TARGET.abs() % 4, None, -100, 0.0, "sum"),
        source="aprender#2182",
        cause="ConstantFactor",
        says=r"1/5|0\.2",
    ),
    SeededBug(
        name="kl_divides_by_elements_not_rows",
        kind="value",
        wrong=DistillationOverElements.apply,
        healthy=Distillation.apply,
        inputs=lambda make: (make(3, 4), _probabilities(), 1.5),
        source="textbook",
        cause="ConstantFactor",
        says=r"1/4|0\.25|4",
    ),
    SeededBug(
        name="kl_forgets_one_over_temperature",
        kind="value",
        wrong=DistillationWithoutTemperature.apply,
        healthy=Distillation.apply,
        inputs=lambda make: (make(3, 4), _probabilities(), 2.5),
        source="textbook",
        cause="ConstantFactor",
        says=r"2\.5|5/2|temperature",
    ),
    SeededBug(
        name="reciprocal_forgets_the_minus",
        kind="value",
        wrong=ReciprocalWithoutMinus.apply,
        healthy=Reciprocal.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="SignFlip",
        says=r"sign|minus|-1|−1|negat",
    ),
    SeededBug(
        name="avg_pool2d_divides_by_k_not_k_squared",
        kind="value",
        wrong=AvgPool2dOverOneSide.apply,
        healthy=AvgPool2d.apply,
        inputs=lambda make: (make(2, 2, 6, 6), 3),
        source="textbook",
        cause="ConstantFactor",
        says=r"3",
    ),
    SeededBug(
        name="gaussian_keeps_the_half",
        kind="value",
        wrong=GaussianHalf.apply,
        healthy=Gaussian.apply,
        inputs=lambda make: (make(3, 4),),
        source="gaussian-splatting#551",
        cause="ConstantFactor",
        says=r"1/2|0\.5|half",
    ),
    SeededBug(
        name="batch_norm_averages_the_weight_gradient",
        kind="value",
        wrong=BatchNormMeanOfWeightGrad.apply,
        healthy=BatchNorm.apply,
        inputs=lambda make: (make(4, 3, 2), make(3), make(3), 1e-5),
        source="textbook",
        cause="ConstantFactor",
        says=r"1/8|0\.125|8",
    ),
    SeededBug(
        name="dropout_forgets_the_keep_rate",
        kind="value",
        wrong=MaskedDropoutUnscaled.apply,
        healthy=MaskedDropout.apply,
        inputs=lambda make: (make(3, 4), torch.arange(12).view(3, 4) % 5 != 2, 0.8),
        source="textbook",
        cause="ConstantFactor",
        says=r"4/5|0\.8",
    ),
    SeededBug(
        name="exp2_rounds_ln2",
        kind="value",
        wrong=PowerOfTwoRoughLn2.apply,
        healthy=PowerOfTwo.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="ConstantFactor",
        says=r"1\.0005|5\.\d*e-0?4|0\.0005|0\.05",
    ),
)


def _probabilities() -> Tensor:
    return torch.tensor(
        [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.0, 0.5, 0.25, 0.25]],
        dtype=torch.float64,
    )
