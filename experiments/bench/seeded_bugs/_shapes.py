"""Bugs of the shape: right at the first shape that one tries, wrong at others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ._healthy_layers import (
    AvgPool2d,
    CrossEntropy,
    Exp,
    Layer,
    LayerNorm,
    Linear,
    LogSoftmax,
    Relu,
    Softmax,
    Swish,
    Tanh,
    cross_entropy_backward,
    fit,
    layer_norm_backward,
    layer_normal,
    linear_backward,
    relu_backward,
    rows,
    swish_backward,
    wide,
)
from ._seeded_bug import SeededBug


class ReluSkipsTail(Relu):
    """Blocks of four numbers: the last, incomplete block gets no gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x = relu_backward(ctx, grad_y)
        whole = grad_x.numel() // 4 * 4
        flat = grad_x.reshape(-1)
        return F.pad(flat[:whole], (0, flat.numel() - whole)).view(grad_x.shape)


class LayerNormSkipsLastRow(LayerNorm):
    """Partial sums over pairs of rows: an odd last row is left out of the weight's."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = layer_norm_backward(ctx, grad_y)
        if grad_weight is not None:
            product = rows(wide(grad_y) * layer_normal(x))
            pairs = product[: len(product) // 2 * 2]
            grad_weight = fit(pairs, weight)
        return grad_x, grad_weight, grad_bias


class SwishMasksWidth(Swish):
    """A tile is 8 wide: of a wider row, the rest is masked away."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        inside = torch.arange(x.shape[-1], device=x.device) < 8
        return torch.where(inside, swish_backward(ctx, grad_y), 0.0)


class SoftmaxSumsDimOne(Softmax):
    """The forward is along dimension -1, the backward along dimension 1."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g, z = wide(grad_y), wide(y)
        return (z * (g - (g * z).sum(1, keepdim=True))).to(y.dtype)


class LogSoftmaxUnpacksTwo(LogSoftmax):
    """`n, c = grad.shape`: a batch of sequences has three dimensions."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        n, c = grad_y.shape
        g = wide(grad_y)
        total = g.sum(1).view(n, 1).expand(n, c)
        return (g - wide(y).exp() * total).to(y.dtype)


class LinearTransposesMatrix(Linear):
    """`grad_output.t()`: a batch of sequences has no `t()`."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_weight is not None:
            grad_weight = (grad_y.t() @ x.to(grad_y.dtype)).to(weight.dtype)
        return grad_x, grad_weight, grad_bias


class LinearSqueezes(Linear):
    """`squeeze()` of a padded dimension also takes a batch of one."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_x is not None:
            grad_x = grad_x.unsqueeze(-1).squeeze()
        return grad_x, grad_weight, grad_bias


class LinearMeansEmpty(Linear):
    """The sum for the bias as n times the mean: 0 times NaN for an empty batch."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_bias is not None:
            g = rows(wide(grad_y))
            grad_bias = (g.mean(0) * len(g)).to(grad_bias.dtype)
        return grad_x, grad_weight, grad_bias


class TanhStacksRows(Tanh):
    """A loop over rows and `stack`, which wants at least one."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        grads = [wide(g) * (1 - wide(z).square()) for g, z in zip(grad_y, y)]  # noqa: B905
        return torch.stack(grads).to(grad_y.dtype)


class ExpScalesByMaximum(Exp):
    """Scales grad_output by its maximum, as for fp8: an empty one has none."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        scale = wide(grad_y).abs().max().clamp(min=1e-30)
        return ((wide(grad_y) / scale) * wide(y) * scale).to(y.dtype)


class SpatialMean(torch.autograd.Function):
    """Mean over height and width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((-2, -1))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        height, width = ctx.shape[-2:]
        share = grad_y / (height * width)
        return share[..., None, None].expand(ctx.shape)


class SpatialMeanSquares(SpatialMean):
    """Divides by the height squared: right for square images."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        share = grad_y / ctx.shape[-2] ** 2
        return share[..., None, None].expand(ctx.shape)


class AvgPool2dInterpolates(AvgPool2d):
    """Nearest interpolation back to the size of x: of an odd one, not the adjoint."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return F.interpolate(grad_y / 4, size=ctx.shape[-2:])


class AvgPool2dRepeats(AvgPool2d):
    """Repeats each gradient 2 x 2 times: too few for an odd size."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        *lead, h, w = grad_y.shape
        spread = (grad_y / 4)[..., :, None, :, None].expand(*lead, h, 2, w, 2)
        return spread.reshape(*lead, 2 * h, 2 * w)


class Conv1d(Layer):
    """Convolution along the last dimension, of as many groups as the weight says."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv1d(x, weight, groups=x.shape[-2] // weight.shape[1])

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        groups = x.shape[-2] // weight.shape[1]
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            w = weight.to(grad_y.dtype)
            grad_x = F.conv_transpose1d(grad_y, w, groups=groups).to(x.dtype)
        if ctx.needs_input_grad[1]:
            *lead, inside, _ = x.shape
            outside, length = grad_y.shape[-2:]
            g = grad_y.reshape(*lead, groups, outside // groups, length)
            z = x.to(g.dtype).reshape(*lead, groups, inside // groups, x.shape[-1])
            taps = [
                (g @ z[..., k : k + length].mT).sum_to_size(
                    *g.shape[-3:-1], z.shape[-2]
                )
                for k in range(weight.shape[-1])
            ]
            grad_weight = torch.stack(taps, -1).reshape(weight.shape).to(weight.dtype)
        return grad_x, grad_weight


class Conv1dForgetsGroups(Conv1d):
    """The backward knows nothing of groups."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = None, None
        g = grad_y
        if ctx.needs_input_grad[0]:
            grad_x = F.conv_transpose1d(g, weight.to(g.dtype)).to(x.dtype)
        if ctx.needs_input_grad[1]:
            windows = x.to(g.dtype).unfold(-1, weight.shape[-1], 1)
            product = torch.einsum("...ot,...itk->oik", g, windows)
            grad_weight = product.to(weight.dtype)
        return grad_x, grad_weight


class MergeHeads(torch.autograd.Function):
    """(B, heads, T, D) -> (B, T, heads D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        heads, length, width = x.shape[-3:]
        return x.transpose(-3, -2).clone().reshape(*x.shape[:-3], length, heads * width)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        heads, length, width = ctx.shape[-3:]
        split = grad_y.reshape(*ctx.shape[:-3], length, heads, width)
        return split.transpose(-3, -2)


class MergeHeadsReshapes(MergeHeads):
    """`reshape` without the transposition: right for one head."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y.reshape(ctx.shape)


class LinearGuessesOrientation(Linear):
    """A weight whose first size is that of x is taken for (in, out): a square one."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_x is not None and weight.shape[0] == x.shape[-1]:
            grad_x = (grad_y @ weight.t().to(grad_y.dtype)).to(x.dtype)
        return grad_x, grad_weight, grad_bias


class Mse(Layer):
    """Mean of (x - target)²; the target gets no gradient."""

    @staticmethod
    def forward(x: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(x, target.detach())

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        difference = wide(x) - wide(target)
        n = max(difference.numel(), 1)
        return fit(wide(grad_loss) * difference * (2 / n), x), None


class MseDividesByLength(Mse):
    """`len(x)` for the number of numbers: right for a vector."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        difference = wide(x) - wide(target)
        n = max(len(difference), 1)
        return fit(wide(grad_loss) * difference * (2 / n), x), None


class CrossEntropyDividesByBatch(CrossEntropy):
    """The mean over the batch alone: scores of pixels (N, C, L) have L times more."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        grad, _ = cross_entropy_backward(ctx, grad_loss)
        return grad * (target.numel() // max(len(x), 1)), None


bugs = (
    SeededBug(
        "relu_skips_last_incomplete_block",
        "shape",
        ReluSkipsTail.apply,
        Relu.apply,
        lambda make: (make(3, 4),),
        "FlagGems#5392",
    ),
    SeededBug(
        "layer_norm_weight_skips_odd_last_row",
        "shape",
        LayerNormSkipsLastRow.apply,
        LayerNorm.apply,
        lambda make: (make(4, 6), make(6), make(6)),
        "FlagGems#5392",
    ),
    SeededBug(
        "swish_masks_row_beyond_tile",
        "shape",
        SwishMasksWidth.apply,
        Swish.apply,
        lambda make: (make(3, 4),),
        "FlagGems#5392",
    ),
    SeededBug(
        "softmax_sums_along_dim_one",
        "shape",
        SoftmaxSumsDimOne.apply,
        Softmax.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "log_softmax_unpacks_two_dims",
        "shape",
        LogSoftmaxUnpacksTwo.apply,
        LogSoftmax.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "linear_transposes_matrices_only",
        "shape",
        LinearTransposesMatrix.apply,
        Linear.apply,
        lambda make: (make(3, 4), make(6, 4), make(6)),
        "textbook",
    ),
    SeededBug(
        "linear_squeezes_batch_of_one",
        "shape",
        LinearSqueezes.apply,
        Linear.apply,
        lambda make: (make(3, 4), make(6, 4), make(6)),
        "textbook",
    ),
    SeededBug(
        "linear_bias_nan_for_empty_batch",
        "shape",
        LinearMeansEmpty.apply,
        Linear.apply,
        lambda make: (make(3, 4), make(6, 4), make(6)),
        "pytorch#53407",
    ),
    SeededBug(
        "tanh_stacks_rows_of_empty_batch",
        "shape",
        TanhStacksRows.apply,
        Tanh.apply,
        lambda make: (make(3, 4),),
        "pytorch#31515",
    ),
    SeededBug(
        "exp_takes_maximum_of_empty_grad_output",
        "shape",
        ExpScalesByMaximum.apply,
        Exp.apply,
        lambda make: (make(3, 4),),
        "pytorch#31515",
    ),
    SeededBug(
        "spatial_mean_divides_by_height_squared",
        "shape",
        SpatialMeanSquares.apply,
        SpatialMean.apply,
        lambda make: (make(2, 3, 4, 4),),
        "textbook",
    ),
    SeededBug(
        "avg_pool2d_interpolates_odd_size",
        "shape",
        AvgPool2dInterpolates.apply,
        AvgPool2d.apply,
        lambda make: (make(2, 3, 4, 4),),
        "textbook",
    ),
    SeededBug(
        "avg_pool2d_too_small_for_odd_size",
        "shape",
        AvgPool2dRepeats.apply,
        AvgPool2d.apply,
        lambda make: (make(2, 3, 4, 6),),
        "textbook",
    ),
    SeededBug(
        "conv1d_forgets_groups",
        "shape",
        Conv1dForgetsGroups.apply,
        Conv1d.apply,
        lambda make: (make(2, 4, 6), make(4, 4, 3)),
        "textbook",
    ),
    SeededBug(
        "merge_heads_reshapes_without_transposing",
        "shape",
        MergeHeadsReshapes.apply,
        MergeHeads.apply,
        lambda make: (make(2, 1, 3, 4),),
        "textbook",
    ),
    SeededBug(
        "linear_takes_square_weight_for_transposed",
        "shape",
        LinearGuessesOrientation.apply,
        Linear.apply,
        lambda make: (make(3, 4), make(6, 4), make(6)),
        "textbook",
    ),
    SeededBug(
        "mse_divides_by_length",
        "shape",
        MseDividesByLength.apply,
        Mse.apply,
        lambda make: (make(6), make(6).detach()),
        "textbook",
    ),
    SeededBug(
        "cross_entropy_divides_by_batch_only",
        "shape",
        CrossEntropyDividesByBatch.apply,
        CrossEntropy.apply,
        lambda make: (make(4, 6), torch.tensor([2, 0, 5, 3])),
        "textbook",
    ),
)
