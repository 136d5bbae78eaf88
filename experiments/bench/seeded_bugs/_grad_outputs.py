"""grad_output misused: ignored, only its first number, bent, mixed up or dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._layers import (
    Attention,
    CrossEntropy,
    Linear,
    LinearCrossEntropy,
    LstmCell,
    Rnn,
    Swish,
    needed,
    rows,
    sum_to,
    wide,
)
from ._seeded_bug import SeededBug


class TotalScore(Function):
    """Σ logsumexp(x) over the last axis: the score of a lattice, one number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return wide(x).logsumexp(-1).sum().to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * torch.softmax(wide(x), -1)).to(x.dtype)


class TotalScoreIgnoresGrad(TotalScore):
    """Returns the gradient of the score itself, not of what is made of it."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.softmax(wide(x), -1).to(x.dtype)


class Prod(Function):
    """The product of the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return wide(x).prod(-1).to(x.dtype)

    @staticmethod
    def others(x: Tensor) -> Tensor:
        """Returns for each element the product of all others, zeros or not."""
        ones = torch.ones_like(wide(x)[..., :1])
        left = torch.cat((ones, wide(x)[..., :-1]), -1).cumprod(-1)
        right = torch.cat((ones, wide(x)[..., 1:].flip(-1)), -1).cumprod(-1)
        return left * right.flip(-1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y).unsqueeze(-1) * Prod.others(x)).to(x.dtype)


class ProdIgnoresGrad(Prod):
    """Does not multiply by grad_output."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return Prod.others(x).to(x.dtype)


class SwishOfOnes(Swish):
    """Returns y'(x), as if grad_output were ones."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Swish.backward(ctx, torch.ones_like(grad_y))


class CrossEntropyFirstGrad(CrossEntropy):
    """Scales all rows by the first row's grad_output, as a kernel's scalar load."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        rows_grad, _ = CrossEntropy.rows_grad(ctx)
        grad = wide(grad_loss).reshape(-1)[:1].sum() * rows_grad
        return grad.to(grad_loss.dtype), *[None] * 5


class CrossEntropyMeanGrad(CrossEntropy):
    """Scales all rows by the mean of grad_output."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        rows_grad, _ = CrossEntropy.rows_grad(ctx)
        return (wide(grad_loss).mean() * rows_grad).to(grad_loss.dtype), *[None] * 5


class LinearCrossEntropyFirstGrad(LinearCrossEntropy):
    """Sums the weight's gradient over the tokens first, then scales by one of them."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        grad_x, _, _ = LinearCrossEntropy.backward(ctx, grad_loss)
        x, weight, target = ctx.saved_tensors
        d = LinearCrossEntropy.logits_grad(x, weight, target)
        grad_weight = wide(grad_loss)[:1].sum() * (d.t() @ wide(x))
        return needed(ctx, grad_x, grad_weight.to(weight.dtype), None)


class Square(Function):
    """y = x²."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.square()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * grad_y * x


class SquareOfSquaredGrad(Square):
    """Multiplies by grad_output twice."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Square.backward(ctx, grad_y * grad_y)


class SquareOfAbsGrad(Square):
    """Drops the sign of grad_output."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Square.backward(ctx, grad_y.abs())


class SquareOfSignOfGrad(Square):
    """Keeps only the sign of grad_output."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Square.backward(ctx, grad_y.sign())


class AttentionClipsGrad(Attention):
    """Clips grad_output to ±0.5 "for stability"."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Attention.backward(ctx, grad_y.clamp(-0.5, 0.5))


class LinearNormalisesGrad(Linear):
    """Divides grad_output by its norm."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        norm = torch.linalg.vector_norm(wide(grad_y)).to(grad_y.dtype)
        return Linear.backward(ctx, grad_y / norm.clamp(min=1e-12))


class Relu(Function):
    """y = max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone().relu_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return grad_y.masked_fill(y <= 0, 0)


class ReluGuided(Relu):
    """Masks by the gradient's sign too: guided backpropagation."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Relu.backward(ctx, grad_y.clamp(min=0))


class MeanAndStd(Function):
    """Mean and sqrt(var + eps) of the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        mean = wide(x).mean(-1)
        std = torch.sqrt(wide(x).var(-1, correction=0) + eps)
        ctx.save_for_backward(x)
        ctx.eps = eps
        return mean.to(x.dtype), std.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_std: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        n = x.shape[-1]
        centred = wide(x) - wide(x).mean(-1, keepdim=True)
        var = centred.square().mean(-1, keepdim=True)
        slope = centred * torch.rsqrt(var + ctx.eps)
        grad = wide(grad_mean).unsqueeze(-1) + wide(grad_std).unsqueeze(-1) * slope
        return (grad / n).to(x.dtype), None


class MeanAndStdDropsStd(MeanAndStd):
    """Drops the gradient of the standard deviation."""

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_std: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (grad_mean.unsqueeze(-1) / x.shape[-1]).expand(x.shape), None


class LstmCellDropsState(LstmCell):
    """Drops the gradient of c', which the next step sends."""

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> Any:
        return LstmCell.backward(ctx, grad_h, torch.zeros_like(grad_c))


class SinCos(Function):
    """(sin(x), cos(x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        return torch.sin(x), torch.cos(x)

    @staticmethod
    def backward(ctx: Any, grad_sin: Tensor, grad_cos: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        grad_x = wide(grad_sin) * torch.cos(wide(x))
        return (grad_x - wide(grad_cos) * torch.sin(wide(x))).to(x.dtype)


class SinCosSwapped(SinCos):
    """Takes the two gradients in the other order."""

    @staticmethod
    def backward(ctx: Any, grad_sin: Tensor, grad_cos: Tensor) -> Any:
        return SinCos.backward(ctx, grad_cos, grad_sin)


class LinearOfTransposedGrad(Linear):
    """Reads grad_output as its transpose; a square output hides it."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Linear.backward(ctx, grad_y.t())


class RowMean(Function):
    """The mean of the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean(-1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return (grad_y / ctx.shape[-1]).unsqueeze(-1).expand(ctx.shape)


class RowMeanAlongColumns(RowMean):
    """Broadcasts grad_output along the other axis: the unsqueeze is missing."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return (grad_y / ctx.shape[-1]).expand(ctx.shape)


class RnnLastStepAlone(Rnn):
    """Uses the gradient of the last step alone, as when only it were returned."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        last = torch.zeros_like(grad_y)
        last[:, -1] = grad_y[:, -1]
        return Rnn.through_time(ctx, last, 1.0)


class MaxAndSum(Function):
    """(maximum, sum) of the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        top, index = x.max(-1)
        ctx.save_for_backward(index)
        ctx.length = x.shape[-1]
        return top, x.sum(-1)

    @staticmethod
    def backward(ctx: Any, grad_top: Tensor, grad_sum: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        places = torch.arange(ctx.length, device=index.device)
        hit = index.unsqueeze(-1) == places
        return grad_top.unsqueeze(-1) * hit + grad_sum.unsqueeze(-1)


class MaxAndSumDropsMax(MaxAndSum):
    """Drops the gradient of the maximum, taken for a statistic to log."""

    @staticmethod
    def backward(ctx: Any, grad_top: Tensor, grad_sum: Tensor) -> Any:
        return MaxAndSum.backward(ctx, torch.zeros_like(grad_top), grad_sum)


class LinearBiasOfOnes(Linear):
    """Counts the rows for the bias's gradient, as if grad_output were ones."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Linear.backward(ctx, grad_y)
        if grad_bias is not None:
            grad_bias = torch.full_like(grad_bias, len(rows(grad_y)))
        return grad_x, grad_weight, grad_bias


class OuterProduct(Function):
    """y_ij = a_i b_j."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a.unsqueeze(-1) * b.unsqueeze(-2)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        g = wide(grad_y)
        need_a, need_b = ctx.needs_input_grad
        return (
            sum_to((g * wide(b).unsqueeze(-2)).sum(-1), a) if need_a else None,
            sum_to((g * wide(a).unsqueeze(-1)).sum(-2), b) if need_b else None,
        )


class OuterProductFirstRow(OuterProduct):
    """Takes grad_output's first row for all rows in the gradient of a."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        _, grad_b = OuterProduct.backward(ctx, grad_y)
        first = grad_y[..., :1, :].expand_as(grad_y)
        grad_a, _ = OuterProduct.backward(ctx, first)
        return grad_a, grad_b


TARGET = torch.tensor([1, 3, 0, 2, 2])


bugs = (
    SeededBug(
        name="total_score_ignores_grad_output",
        kind="grad_output",
        wrong=TotalScoreIgnoresGrad.apply,
        healthy=TotalScore.apply,
        inputs=lambda make: (make(3, 4),),
        source="k2#341",
        cause="IgnoresGradOutput",
        says=r"grad_?\w*",
    ),
    SeededBug(
        name="prod_ignores_grad_output",
        kind="grad_output",
        wrong=ProdIgnoresGrad.apply,
        healthy=Prod.apply,
        inputs=lambda make: (make(3, 4),),
        source="pytorch#995",
        cause="IgnoresGradOutput",
        says=r"grad_?\w*",
    ),
    SeededBug(
        name="swish_assumes_grad_output_is_ones",
        kind="grad_output",
        wrong=SwishOfOnes.apply,
        healthy=Swish.apply,
        inputs=lambda make: (make(3, 4),),
        source="pytorch#4355",
        cause="IgnoresGradOutput",
        says=r"grad_?\w*|ones",
    ),
    SeededBug(
        name="linear_bias_assumes_grad_output_is_ones",
        kind="grad_output",
        wrong=LinearBiasOfOnes.apply,
        healthy=Linear.apply,
        inputs=lambda make: (make(3, 4), make(2, 4), make(2)),
        source="tutorials#216",
        cause="IgnoresGradOutput",
        says=r"grad_?\w*|ones",
    ),
    SeededBug(
        name="cross_entropy_none_uses_the_first_grad_output",
        kind="grad_output",
        wrong=CrossEntropyFirstGrad.apply,
        healthy=CrossEntropy.apply,
        inputs=lambda make: (make(5, 4), TARGET, None, -100, 0.0, "none"),
        source="Liger-Kernel#968",
        cause="FirstElementOnly",
        says=r"first|\[0\]|one element|only",
    ),
    SeededBug(
        name="linear_cross_entropy_weight_uses_the_first_grad_output",
        kind="grad_output",
        wrong=LinearCrossEntropyFirstGrad.apply,
        healthy=LinearCrossEntropy.apply,
        inputs=lambda make: (make(5, 3), make(4, 3), TARGET),
        source="Liger-Kernel#1298",
        cause="FirstElementOnly",
        says=r"first|\[0\]|one element|only",
    ),
    SeededBug(
        name="cross_entropy_none_uses_the_mean_grad_output",
        kind="grad_output",
        wrong=CrossEntropyMeanGrad.apply,
        healthy=CrossEntropy.apply,
        inputs=lambda make: (make(5, 4), TARGET, None, -100, 0.1, "none"),
        source="textbook",
        cause="FirstElementOnly",
        says=r"mean|average",
    ),
    SeededBug(
        name="square_squares_grad_output",
        kind="grad_output",
        wrong=SquareOfSquaredGrad.apply,
        healthy=Square.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="NonlinearGradOutput",
        says=r"squar|power|\*\* ?2|linear",
    ),
    SeededBug(
        name="square_takes_the_magnitude_of_grad_output",
        kind="grad_output",
        wrong=SquareOfAbsGrad.apply,
        healthy=Square.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="NonlinearGradOutput",
        says=r"abs|magnitude|linear",
    ),
    SeededBug(
        name="square_takes_the_sign_of_grad_output",
        kind="grad_output",
        wrong=SquareOfSignOfGrad.apply,
        healthy=Square.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="NonlinearGradOutput",
        says=r"sign|linear",
    ),
    SeededBug(
        name="attention_clips_grad_output",
        kind="grad_output",
        wrong=AttentionClipsGrad.apply,
        healthy=Attention.apply,
        inputs=lambda make: (make(2, 3, 4), make(2, 4, 4), make(2, 4, 3)),
        source="textbook",
        cause="NonlinearGradOutput",
        says=r"clip|clamp|linear",
    ),
    SeededBug(
        name="linear_normalises_grad_output",
        kind="grad_output",
        wrong=LinearNormalisesGrad.apply,
        healthy=Linear.apply,
        inputs=lambda make: (make(3, 4), make(2, 4), make(2)),
        source="textbook",
        cause="NonlinearGradOutput",
        says=r"norm|linear|scale",
    ),
    SeededBug(
        name="relu_is_guided_backpropagation",
        kind="grad_output",
        wrong=ReluGuided.apply,
        healthy=Relu.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="NonlinearGradOutput",
        says=r"clip|clamp|relu|positive|linear",
    ),
    SeededBug(
        name="mean_and_std_drops_the_std_gradient",
        kind="grad_output",
        wrong=MeanAndStdDropsStd.apply,
        healthy=MeanAndStd.apply,
        inputs=lambda make: (make(3, 4), 1e-5),
        source="textbook",
        cause="DroppedOutput",
        says=r"output|second|1",
    ),
    SeededBug(
        name="max_and_sum_drops_the_max_gradient",
        kind="grad_output",
        wrong=MaxAndSumDropsMax.apply,
        healthy=MaxAndSum.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="DroppedOutput",
        says=r"output|first|0",
    ),
    SeededBug(
        name="lstm_cell_drops_the_state_gradient",
        kind="grad_output",
        wrong=LstmCellDropsState.apply,
        healthy=LstmCell.apply,
        inputs=lambda make: (make(2, 12), make(2, 3)),
        source="textbook",
        cause="DroppedOutput",
        says=r"output|second|1",
    ),
    SeededBug(
        name="sin_cos_swaps_the_output_gradients",
        kind="grad_output",
        wrong=SinCosSwapped.apply,
        healthy=SinCos.apply,
        inputs=lambda make: (make(3, 4),),
        source="textbook",
        cause="DroppedOutput",
        says="exchanged|swapped",
    ),
    SeededBug(
        name="linear_transposes_grad_output",
        kind="grad_output",
        wrong=LinearOfTransposedGrad.apply,
        healthy=Linear.apply,
        inputs=lambda make: (make(4, 3), make(4, 3), make(4)),
        source="textbook",
        cause="Transposed",
        says=r"transpos|permut|axes",
    ),
    SeededBug(
        name="row_mean_broadcasts_along_the_wrong_axis",
        kind="grad_output",
        wrong=RowMeanAlongColumns.apply,
        healthy=RowMean.apply,
        inputs=lambda make: (make(4, 4),),
        source="textbook",
        cause="Transposed",
        says=r"transpos|permut|axes|axis|dim",
    ),
    SeededBug(
        name="rnn_uses_the_last_step_gradient_alone",
        kind="grad_output",
        wrong=RnnLastStepAlone.apply,
        healthy=Rnn.apply,
        inputs=lambda make: (make(2, 3, 4), make(4, 4)),
        source="textbook",
        cause="FirstElementOnly",
        says="only index 2 of dim 1",
    ),
    SeededBug(
        name="outer_product_uses_the_first_row_of_grad_output",
        kind="grad_output",
        wrong=OuterProductFirstRow.apply,
        healthy=OuterProduct.apply,
        inputs=lambda make: (make(3), make(4)),
        source="textbook",
        cause="FirstElementOnly",
        says="only index 0 of dim 0",
    ),
)
