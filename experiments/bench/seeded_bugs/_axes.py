"""Axes: a wrong transpose or dim, a flip forgotten, an index off by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ._layers import Conv1d, Linear, MaxPool1d, Softmax, needed, rows, sum_to, wide
from ._seeded_bug import SeededBug


class LinearWithWrongTranspose(Linear):
    """Multiplies by Wᵀ on the way back too; a square W hides it from the shapes."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        g = wide(grad_y)
        return needed(
            ctx,
            (g @ wide(weight).t()).to(x.dtype),
            (rows(g).t() @ rows(wide(x))).to(weight.dtype),
            sum_to(g, bias),
        )


class LinearWeightGradTransposed(Linear):
    """Writes xᵀ g for the weight's gradient, where W is stored (out, in)."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        g = wide(grad_y)
        return needed(
            ctx,
            (g @ wide(weight)).to(x.dtype),
            (rows(wide(x)).t() @ rows(g)).to(weight.dtype),
            sum_to(g, bias),
        )


class LinearBiasOverFeatures(Linear):
    """Sums the bias's gradient over the features, where it is the batch."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Linear.backward(ctx, grad_y)
        if grad_bias is not None:
            grad_bias = grad_y.sum(1)
        return grad_x, grad_weight, grad_bias


class Bilinear(Function):
    """y = Σ x_i W_ij z_j."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, z)
        y = torch.einsum("...i,ij,...j->...", wide(x), wide(weight), wide(z))
        return y.to(x.dtype)

    @staticmethod
    def grads(ctx: Any, grad_y: Tensor, outer: str) -> Any:
        """Returns the three gradients, the weight's by the einsum `outer`."""
        x, weight, z = ctx.saved_tensors
        g = wide(grad_y)
        grad_x = grad_weight = grad_z = None
        if ctx.needs_input_grad[0]:
            each = torch.einsum("...,ij,...j->...i", g, wide(weight), wide(z))
            grad_x = sum_to(each, x)
        if ctx.needs_input_grad[1]:
            each = torch.einsum(outer, g, wide(x), wide(z))
            grad_weight = sum_to(each, weight)
        if ctx.needs_input_grad[2]:
            each = torch.einsum("...,...i,ij->...j", g, wide(x), wide(weight))
            grad_z = sum_to(each, z)
        return grad_x, grad_weight, grad_z

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Bilinear.grads(ctx, grad_y, "...,...i,...j->...ij")


class BilinearOuterTransposed(Bilinear):
    """Takes the outer product z xᵀ for the weight's gradient x zᵀ."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Bilinear.grads(ctx, grad_y, "...,...i,...j->...ji")


class Determinant3(Function):
    """det A of 3 by 3 matrices."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor) -> Tensor:
        return torch.linalg.det(wide(a)).to(a.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def cofactors(a: Tensor) -> Tensor:
        """Returns the matrix of cofactors: cross products of the rows."""
        x, y, z = wide(a).unbind(-2)
        parts = (torch.linalg.cross(y, z), torch.linalg.cross(z, x))
        return torch.stack((*parts, torch.linalg.cross(x, y)), -2)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        g = wide(grad_y)[..., None, None]
        return (g * Determinant3.cofactors(a)).to(a.dtype)


class Determinant3Adjugate(Determinant3):
    """Takes the adjugate, det A A⁻¹, for its transpose."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        g = wide(grad_y)[..., None, None]
        return (g * Determinant3.cofactors(a).transpose(-2, -1)).to(a.dtype)


class Inverse(Function):
    """y = A⁻¹."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        y = torch.linalg.inv(wide(a)).to(a.dtype)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        y_t = wide(y).transpose(-2, -1)
        return -(y_t @ wide(grad_y) @ y_t).to(y.dtype)


class InverseUntransposed(Inverse):
    """Forgets both transposes of -A⁻ᵀ g A⁻ᵀ."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return -(wide(y) @ wide(grad_y) @ wide(y)).to(y.dtype)


class SoftmaxSumsOverRows(Softmax):
    """Sums g y over axis 0, where the softmax ran along the last."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g = wide(grad_y) * wide(y)
        return (g - wide(y) * g.sum(0, keepdim=True)).to(y.dtype), None


class ChannelsLast(Function):
    """Moves axis 1 of (n, c, h, w) to the end."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y.permute(0, 3, 1, 2)


class ChannelsLastAgain(ChannelsLast):
    """Applies the permutation once more, where it must be undone."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y.permute(0, 2, 3, 1)


class SplitHeads(Function):
    """(b, t, h d) to (b, h, t, d), scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int, scale: float) -> Tensor:
        ctx.heads, ctx.scale = heads, scale
        y = x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(-3, -2)
        return y * scale

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return (grad_y * ctx.scale).transpose(-3, -2).flatten(-2), None, None


class SplitHeadsMergedInPlace(SplitHeads):
    """Reshapes without swapping time and heads back; t = h hides it."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return (grad_y * ctx.scale).flatten(-2), None, None


class ReversedScale(Function):
    """The last axis backwards, times a weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return (wide(x).flip(-1) * wide(weight)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        g = wide(grad_y)
        return (
            sum_to((g * wide(weight)).flip(-1), x) if ctx.needs_input_grad[0] else None,
            sum_to(g * wide(x).flip(-1), weight) if ctx.needs_input_grad[1] else None,
        )


class ReversedScaleUnflipped(ReversedScale):
    """Does not turn the gradient of x around."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        g = wide(grad_y)
        grad_weight = sum_to(g * wide(x).flip(-1), weight)
        return needed(ctx, sum_to(g * wide(weight), x), grad_weight)


class CumSum(Function):
    """Running sums of the last axis, computed by NumPy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        values = wide(x).detach().cpu().numpy()
        return torch.as_tensor(np.cumsum(values, -1)).to(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return wide(grad_y).flip(-1).cumsum(-1).flip(-1).to(grad_y.dtype)


class CumSumForwards(CumSum):
    """Sums the gradient from the left, where x_i moves all sums to its right."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y.cumsum(-1)


class CumSumExclusive(CumSum):
    """Leaves the element itself out of the reverse scan."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        after = grad_y[..., 1:].flip(-1).cumsum(-1).flip(-1)
        return F.pad(after, (0, 1))


class TokenShift(Function):
    """y_t = x_{t-1} along axis -2, zeros first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[..., 1:, :] = x[..., :-1, :]
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return F.pad(grad_y[..., 1:, :], (0, 0, 0, 1))


class TokenShiftSameWay(TokenShift):
    """Shifts the gradient forwards too, where it has to go back."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return F.pad(grad_y[..., :-1, :], (0, 0, 1, 0))


class TokenShiftNotUndone(TokenShift):
    """Hands the gradient of y_t to x_t."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return F.pad(grad_y[..., 1:, :], (0, 0, 1, 0))


class Conv1dKernelNotFlipped(Conv1d):
    """Correlates the gradient with the kernel as it is."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        _, grad_weight, grad_bias, _ = Conv1d.backward(ctx, grad_y)
        grad_x = Conv1d.grad_x(grad_y, weight, ctx.padding).to(x.dtype)
        return needed(ctx, grad_x, grad_weight, grad_bias, None)


class Conv1dWeightGradFlipped(Conv1d):
    """Returns the weight's gradient back to front."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias, _ = Conv1d.backward(ctx, grad_y)
        if grad_weight is not None:
            grad_weight = grad_weight.flip(-1)
        return grad_x, grad_weight, grad_bias, None


class Conv2d(Function):
    """torch's own convolution of (n, c, h, w), stride 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f"x must be (n, c, h, w), got shape {tuple(x.shape)}")
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(wide(x), wide(weight), padding=padding).to(x.dtype)

    @staticmethod
    def grads(ctx: Any, grad_y: Tensor, kernel: Tensor) -> Any:
        """Returns the gradients, x's by correlation with the flipped `kernel`."""
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            rest = weight.shape[-1] - 1 - ctx.padding
            swapped = wide(kernel).transpose(0, 1)
            grad_x = F.conv2d(wide(grad_y), swapped, padding=rest).to(x.dtype)
        if ctx.needs_input_grad[1]:
            images, g = wide(x).transpose(0, 1), wide(grad_y).transpose(0, 1)
            if len(x) > 0:
                each = F.conv2d(images, g, padding=ctx.padding).transpose(0, 1)
                grad_weight = each.to(weight.dtype)
            else:
                grad_weight = torch.zeros_like(weight)
        return grad_x, grad_weight, None

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Conv2d.grads(ctx, grad_y, ctx.saved_tensors[1].flip(-2, -1))


class Conv2dKernelFlippedOnce(Conv2d):
    """Flips the kernel along its width alone."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Conv2d.grads(ctx, grad_y, ctx.saved_tensors[1].flip(-1))


class Conv2dKernelNotFlipped(Conv2d):
    """Correlates the gradient with the kernel as it is."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return Conv2d.grads(ctx, grad_y, ctx.saved_tensors[1])


class GatedScan(Function):
    """h_t = a_t h_{t-1} + x_t along the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> Tensor:
        h = torch.empty_like(wide(x))
        last = torch.zeros_like(wide(x)[..., 0])
        for t in range(x.shape[-1]):
            last = wide(gate)[..., t] * last + wide(x)[..., t]
            h[..., t] = last
        h = h.to(x.dtype)
        ctx.save_for_backward(gate, h)
        return h

    @staticmethod
    def grads(ctx: Any, grad_h: Tensor, shift: int) -> Any:
        """Returns both gradients; step t is reached through gate t + `shift`."""
        gate, h = ctx.saved_tensors
        g, a, steps = wide(grad_h), wide(gate), []
        carry = torch.zeros_like(g[..., 0])
        for t in reversed(range(g.shape[-1])):
            if t + 1 < g.shape[-1]:
                carry = a[..., t + shift] * carry
            carry = g[..., t] + carry
            steps.insert(0, carry)
        d = torch.stack(steps, -1)
        before = F.pad(wide(h)[..., :-1], (1, 0))
        return (
            d.to(h.dtype) if ctx.needs_input_grad[0] else None,
            sum_to(d * before, gate) if ctx.needs_input_grad[1] else None,
        )

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> Any:
        return GatedScan.grads(ctx, grad_h, 1)


class GatedScanOwnGate(GatedScan):
    """Goes back from h_{t+1} to h_t through gate t, where it is gate t + 1."""

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> Any:
        return GatedScan.grads(ctx, grad_h, 0)


class Shuffle(Function):
    """The rows of x in the order of a permutation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x[order]

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (order,) = ctx.saved_tensors
        return grad_y[order.argsort()], None


class ShuffleAgain(Shuffle):
    """Applies the order once more, where its inverse is needed."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (order,) = ctx.saved_tensors
        return grad_y[order], None


class Rotary(Function):
    """Rotates pairs (x_i, x_{i+d/2}): y = x cos + rotate_half(x) sin."""

    generate_vmap_rule = True

    @staticmethod
    def rotate_half(x: Tensor) -> Tensor:
        """Returns (-right, left)."""
        left, right = x.chunk(2, -1)
        return torch.cat((-right, left), -1)

    @staticmethod
    def forward(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = Rotary.rotate_half(wide(x))
        return (wide(x) * cos + turned * sin).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, cos, sin = ctx.saved_tensors
        g = wide(grad_y)
        return sum_to(g * cos - Rotary.rotate_half(g * sin), x), None, None


class RotarySameWay(Rotary):
    """Rotates the gradient forwards, where the transpose turns it back."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, cos, sin = ctx.saved_tensors
        g = wide(grad_y)
        return sum_to(g * cos + Rotary.rotate_half(g * sin), x), None, None


class RotarySinAfterTheTurn(Rotary):
    """Multiplies by sin after rotating: right only where both halves are equal."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, cos, sin = ctx.saved_tensors
        g = wide(grad_y)
        return sum_to(g * cos - Rotary.rotate_half(g) * sin, x), None, None


class Upsample(Function):
    """Bilinear interpolation with aligned corners, by torch's own kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.shape, ctx.size = list(x.shape), list(size)
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x = torch.ops.aten.upsample_bilinear2d_backward.default(
            grad_y, ctx.size, ctx.shape, True
        )
        return grad_x, None


class UpsampleOtherCorners(Upsample):
    """Goes back with the weights of align_corners=False."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x = torch.ops.aten.upsample_bilinear2d_backward.default(
            grad_y, ctx.size, ctx.shape, False
        )
        return grad_x, None


class MaxPool1dForgetsPadding(MaxPool1d):
    """Indices count from the padded start; cuts the gradient one place too early."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        padded = grad_y.new_zeros(ctx.shape).scatter_add(-1, index, grad_y)
        return padded.narrow(-1, ctx.padding - 1, ctx.length), None, None, None


class ScatterAdd(Function):
    """y = base with src added at the indices of the last axis."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, index: Tensor, src: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        y = base.clone()
        return y.scatter_add_(-1, index, src)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        grad_src = grad_y.gather(-1, index) if ctx.needs_input_grad[2] else None
        return grad_y if ctx.needs_input_grad[0] else None, None, grad_src


class ScatterAddGathersColumns(ScatterAdd):
    """Gathers along axis 0, where src was scattered along the last."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        return needed(ctx, grad_y, None, grad_y.gather(0, index))


def _angles() -> tuple[Tensor, Tensor]:
    angle = torch.linspace(0.3, 2.1, 12, dtype=torch.float64).view(3, 4)
    return angle.cos(), angle.sin()


bugs = (
    SeededBug(
        name="linear_grad_x_by_transposed_square_weight",
        kind="value",
        wrong=LinearWithWrongTranspose.apply,
        healthy=Linear.apply,
        inputs=lambda make: (make(3, 4), make(4, 4), make(4)),
        source="tvm#5695",
        cause="Transposed",
        says=r"transpos|permut|axes",
    ),
    SeededBug(
        name="linear_weight_gradient_transposed",
        kind="value",
        wrong=LinearWeightGradTransposed.apply,
        healthy=Linear.apply,
        inputs=lambda make: (make(2, 3, 4), make(4, 4), make(4)),
        source="TileOPs#54",
        cause="Transposed",
        says=r"transpos|permut|axes",
    ),
    SeededBug(
        name="linear_bias_gradient_sums_the_wrong_dim",
        kind="value",
        wrong=LinearBiasOverFeatures.apply,
        healthy=Linear.apply,
        inputs=lambda make: (make(4, 3), make(4, 3), make(4)),
        source="textbook",
        cause="Unreduced",
        says=r"dim|axis|sum",
    ),
    SeededBug(
        name="bilinear_outer_product_transposed",
        kind="value",
        wrong=BilinearOuterTransposed.apply,
        healthy=Bilinear.apply,
        inputs=lambda make: (make(3, 4), make(4, 4), make(3, 4)),
        source="textbook",
        cause="Transposed",
        says=r"transpos|permut|axes",
    ),
    SeededBug(
        name="determinant_by_the_adjugate",
        kind="value",
        wrong=Determinant3Adjugate.apply,
        healthy=Determinant3.apply,
        inputs=lambda make: (make(2, 3, 3),),
        source="textbook",
        cause="Transposed",
        says=r"transpos|permut|axes",
    ),
    SeededBug(
        name="inverse_forgets_the_transposes",
        kind="value",
        wrong=InverseUntransposed.apply,
        healthy=Inverse.apply,
        inputs=lambda make: (_well_conditioned(make(4, 4)),),
        source="textbook",
        cause="Transposed",
        says="transpos",
    ),
    SeededBug(
        name="softmax_sums_over_the_wrong_dim",
        kind="value",
        wrong=SoftmaxSumsOverRows.apply,
        healthy=Softmax.apply,
        inputs=lambda make: (make(4, 4), -1),
        source="textbook",
        cause="Unreduced",
        says=r"dim|axis|sum",
    ),
    SeededBug(
        name="channels_last_permutes_again",
        kind="value",
        wrong=ChannelsLastAgain.apply,
        healthy=ChannelsLast.apply,
        inputs=lambda make: (make(2, 3, 3, 3),),
        source="textbook",
        cause="Transposed",
        says=r"transpos|permut|axes",
    ),
    SeededBug(
        name="heads_merged_without_swapping_time_back",
        kind="value",
        wrong=SplitHeadsMergedInPlace.apply,
        healthy=SplitHeads.apply,
        inputs=lambda make: (make(2, 3, 6), 3, 0.5),
        source="textbook",
        cause="Transposed",
        says=r"transpos|permut|axes",
    ),
    SeededBug(
        name="flip_not_undone",
        kind="value",
        wrong=ReversedScaleUnflipped.apply,
        healthy=ReversedScale.apply,
        inputs=lambda make: (make(3, 4), make(4)),
        source="textbook",
        cause="Transposed",
        says=r"flip|revers|axis",
    ),
    SeededBug(
        name="cumsum_backward_not_reversed",
        kind="value",
        wrong=CumSumForwards.apply,
        healthy=CumSum.apply,
        inputs=lambda make: (make(3, 5),),
        source="textbook",
        cause="WrongDirection",
        says="direction|other way",
    ),
    SeededBug(
        name="cumsum_backward_is_exclusive",
        kind="value",
        wrong=CumSumExclusive.apply,
        healthy=CumSum.apply,
        inputs=lambda make: (make(3, 5),),
        source="textbook",
        cause="OffByOne",
        says=r"shift|one|off|1",
    ),
    SeededBug(
        name="token_shift_goes_the_same_way",
        kind="value",
        wrong=TokenShiftSameWay.apply,
        healthy=TokenShift.apply,
        inputs=lambda make: (make(2, 5, 3),),
        source="textbook",
        cause="OffByOne",
        says=r"shift|off|2",
    ),
    SeededBug(
        name="token_shift_not_undone",
        kind="value",
        wrong=TokenShiftNotUndone.apply,
        healthy=TokenShift.apply,
        inputs=lambda make: (make(2, 5, 3),),
        source="textbook",
        cause="OffByOne",
        says=r"shift|one|off|1",
    ),
    SeededBug(
        name="conv1d_kernel_not_flipped",
        kind="value",
        wrong=Conv1dKernelNotFlipped.apply,
        healthy=Conv1d.apply,
        inputs=lambda make: (make(2, 3, 6), make(4, 3, 3), make(4), 1),
        source="textbook",
        cause="UnflippedKernel",
        says=r"flip|kernel",
    ),
    SeededBug(
        name="conv1d_weight_gradient_flipped",
        kind="value",
        wrong=Conv1dWeightGradFlipped.apply,
        healthy=Conv1d.apply,
        inputs=lambda make: (make(2, 3, 6), make(4, 3, 3), make(4), 0),
        source="textbook",
        cause="Transposed",
        says=r"flip|revers|axis",
    ),
    SeededBug(
        name="conv2d_kernel_not_flipped",
        kind="value",
        wrong=Conv2dKernelNotFlipped.apply,
        healthy=Conv2d.apply,
        inputs=lambda make: (make(2, 2, 5, 5), make(3, 2, 3, 3), 1),
        source="textbook",
        cause="UnflippedKernel",
        says=r"flip|kernel",
    ),
    SeededBug(
        name="conv2d_kernel_flipped_along_one_axis",
        kind="value",
        wrong=Conv2dKernelFlippedOnce.apply,
        healthy=Conv2d.apply,
        inputs=lambda make: (make(2, 2, 5, 5), make(3, 2, 3, 3), 0),
        source="textbook",
        cause="UnflippedKernel",
        says=r"flip|kernel",
    ),
    SeededBug(
        name="gated_scan_gate_off_by_one",
        kind="value",
        wrong=GatedScanOwnGate.apply,
        healthy=GatedScan.apply,
        inputs=lambda make: (make(3, 5), make(3, 5)),
        source="textbook",
    ),
    SeededBug(
        name="shuffle_applied_again",
        kind="value",
        wrong=ShuffleAgain.apply,
        healthy=Shuffle.apply,
        inputs=lambda make: (make(5, 3), torch.tensor([3, 0, 4, 2, 1])),
        source="textbook",
        cause="WrongIndex",
        says="another entry of grad_output",
    ),
    SeededBug(
        name="scatter_add_gathers_along_the_wrong_dim",
        kind="value",
        wrong=ScatterAddGathersColumns.apply,
        healthy=ScatterAdd.apply,
        inputs=lambda make: (
            make(3, 3),
            torch.tensor([[0, 2, 0], [1, 1, 2], [2, 0, 1]]),
            make(3, 3),
        ),
        source="textbook",
        cause="WrongIndex",
        says="another entry of grad_output",
    ),
    SeededBug(
        name="rotary_turns_the_gradient_forwards",
        kind="value",
        wrong=RotarySameWay.apply,
        healthy=Rotary.apply,
        inputs=lambda make: (make(2, 3, 4), *_angles()),
        source="textbook",
        cause="MissingTerm",
        says=r"sin|rotat|neg|cat|mul|chunk|split",
    ),
    SeededBug(
        name="rotary_multiplies_by_sin_after_the_turn",
        kind="value",
        wrong=RotarySinAfterTheTurn.apply,
        healthy=Rotary.apply,
        inputs=lambda make: (make(2, 3, 4), *_angles()),
        source="Paddle#74716",
    ),
    SeededBug(
        name="upsampling_with_the_other_corners",
        kind="value",
        wrong=UpsampleOtherCorners.apply,
        healthy=Upsample.apply,
        inputs=lambda make: (make(2, 2, 3, 3), (5, 6)),
        source="textbook",
    ),
    SeededBug(
        name="max_pool1d_index_forgets_the_padding",
        kind="value",
        wrong=MaxPool1dForgetsPadding.apply,
        healthy=MaxPool1d.apply,
        inputs=lambda make: (make(2, 3, 7), 3, 3, 1),
        source="textbook",
        cause="OffByOne",
        says=r"shift|one|off|1",
    ),
)


def _well_conditioned(a: Tensor) -> Tensor:
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    return (a.detach() + 4 * eye).requires_grad_()
