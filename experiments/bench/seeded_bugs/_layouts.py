"""Bugs of the memory layout: right for contiguous tensors, and for no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._healthy_layers import (
    AvgPool2d,
    Embedding,
    Exp,
    Gelu,
    Layer,
    Linear,
    LogSoftmax,
    Matmul,
    Relu,
    RmsNorm,
    Sigmoid,
    Softplus,
    Swish,
    avg_pool2d_backward,
    fit,
    linear_backward,
    matmul_backward,
    rms_normal,
    rms_scale,
    rows,
    swish_backward,
    wide,
)
from ._seeded_bug import SeededBug


def _as_kernel_reads(x: Tensor) -> Tensor:
    """Returns what a kernel sees that takes the memory of `x` for contiguous."""
    strides = torch.empty(x.shape, device="meta").stride()
    return x.as_strided(x.shape, strides)


class ReluReadsMemory(Relu):
    """The kernel walks the memory of grad_output, whatever its strides are."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.where(y > 0, _as_kernel_reads(grad_y), 0.0)


class LinearViewsGrad(Linear):
    """`view` flattens the leading dimensions of grad_output."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        g = grad_y.view(-1, grad_y.shape[-1])
        grad_x, grad_weight, grad_bias = linear_backward(ctx, g)
        if grad_x is not None:
            grad_x = grad_x.view(ctx.saved_tensors[0].shape)
        return grad_x, grad_weight, grad_bias


class GeluViewsGrad(Gelu):
    """The elementwise kernel wants a vector, so that grad_output is `view(-1)`."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        flat = wide(grad_y).view(-1) * Gelu.slope(x).reshape(-1)
        return flat.view(x.shape).to(x.dtype)


class SigmoidForgetsOffset(Sigmoid):
    """Strides are passed to the kernel, the storage offset is not."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g = wide(grad_y.as_strided(grad_y.shape, grad_y.stride(), 0))
        return (g * wide(y) * (1 - wide(y))).to(y.dtype)


class SoftplusRavelsAsStored(Softplus):
    """In numpy: `ravel(order="K")` takes grad_output in the order of its memory."""

    generate_vmap_rule = False

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g = wide(grad_y).numpy(force=True).ravel(order="K")
        z = wide(x).numpy(force=True).ravel()
        flat = torch.from_numpy(np.asarray(g * (0.5 + 0.5 * np.tanh(z / 2))))
        return flat.reshape(x.shape).to(x)


class LogSoftmaxCopiesStrides(LogSoftmax):
    """The result gets the strides of grad_output: of stride 0, rows share memory."""

    generate_vmap_rule = False

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        result = torch.empty_strided(grad_y.shape, grad_y.stride(), dtype=y.dtype)
        for row in range(len(y)):
            g = grad_y[row]
            result[row] = g - y[row].exp() * g.sum(-1, keepdim=True)
        return result


class RmsNormReadsMemoryOfInput(RmsNorm):
    """The kernel takes the saved input for contiguous."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        z, g = _as_kernel_reads(x), wide(grad_y)
        normal = rms_normal(z)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            h = g * wide(weight)
            inner = (h * normal).mean(-1, keepdim=True)
            grad_x = (rms_scale(z) * (h - normal * inner)).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = fit(g * normal, weight)
        return grad_x, grad_weight


class SwishZipsMemory(Swish):
    """Dense tensors are walked in memory order, though their orders may differ."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if not all(t.is_contiguous() or t.mT.is_contiguous() for t in (x, grad_y)):
            return swish_backward(ctx, grad_y)
        g, z = (wide(t.as_strided((t.numel(),), (1,))) for t in (grad_y, x))
        s = torch.sigmoid(z)
        flat = (g * s * (1 + z * (1 - s))).to(x.dtype)
        return flat.as_strided(x.shape, x.stride())


class LinearReadsMemoryOfWeight(Linear):
    """The kernel takes the weight for contiguous: a tied one is transposed."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        _, weight, _ = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_x is not None:
            grad_x = grad_y @ _as_kernel_reads(weight).to(grad_y.dtype)
            grad_x = grad_x.to(ctx.saved_tensors[0].dtype)
        return grad_x, grad_weight, grad_bias


class EmbeddingViewsIndex(Embedding):
    """`view(-1)` flattens the indices, which may be a transposed batch."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        g = rows(wide(grad_y))
        summed = g.new_zeros(ctx.shape).index_add(0, index.view(-1), g)
        return summed.to(grad_y.dtype), None


class AvgPool2dMisreadsChannelsLast(AvgPool2d):
    """The fast path for channels_last takes the memory for (N, C, H, W)."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        g = grad_y
        if g.ndim == 4 and g.is_contiguous(memory_format=torch.channels_last):
            g = g if g.is_contiguous() else _as_kernel_reads(g)
        return avg_pool2d_backward(ctx, g)


class MatmulGuessesTransposed(Matmul):
    """A grad_output whose rows are not dense is taken for a transposed matrix."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        transposed = grad_y.ndim == 2 and grad_y.stride(-1) != 1
        square = grad_y.shape[0] == grad_y.shape[-1]
        return matmul_backward(ctx, grad_y.t() if transposed and square else grad_y)


class ExpTakesExpandedForScalar(Exp):
    """An expanded grad_output is read as one number, though it is one a column."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if 0 in grad_y.stride() and grad_y.numel():
            grad_y = grad_y[(0,) * grad_y.ndim]
        return grad_y * y


class ChannelBias(Layer):
    """y = x + b, of images (N, C, H, W) and one number a channel."""

    @staticmethod
    def forward(x: Tensor, bias: Tensor) -> Tensor:
        return x + bias[:, None, None]

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, bias = ctx.saved_tensors
        grad_x = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = fit(grad_y, x)
        if ctx.needs_input_grad[1]:
            grad_bias = fit(grad_y.sum((-2, -1)), bias)
        return grad_x, grad_bias


_channel_bias_backward = ChannelBias.backward


class ChannelBiasStepsByPlane(ChannelBias):
    """The reduction kernel steps H W numbers from channel to channel."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_bias = _channel_bias_backward(ctx, grad_y)
        if grad_bias is not None:
            n, c, h, w = grad_y.shape
            planes = grad_y.as_strided((n, c, h * w), (c * h * w, h * w, 1))
            grad_bias = planes.sum((0, 2)).to(grad_bias.dtype)
        return grad_x, grad_bias


bugs = (
    SeededBug(
        "relu_walks_memory_of_grad_output",
        "layout",
        ReluReadsMemory.apply,
        Relu.apply,
        lambda make: (make(3, 4),),
        "flash-attention#355",
    ),
    SeededBug(
        "linear_views_grad_output",
        "layout",
        LinearViewsGrad.apply,
        Linear.apply,
        lambda make: (make(2, 3, 4), make(5, 4), make(5)),
        "apex#1601",
    ),
    SeededBug(
        "gelu_views_grad_output_as_vector",
        "layout",
        GeluViewsGrad.apply,
        Gelu.apply,
        lambda make: (make(3, 4),),
        "mmcv#737",
    ),
    SeededBug(
        "sigmoid_forgets_storage_offset_of_grad_output",
        "layout",
        SigmoidForgetsOffset.apply,
        Sigmoid.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "softplus_ravels_grad_output_in_memory_order",
        "layout",
        SoftplusRavelsAsStored.apply,
        Softplus.apply,
        lambda make: (make(3, 4),),
        "torch/nn#345",
    ),
    SeededBug(
        "log_softmax_copies_strides_of_expanded_grad_output",
        "layout",
        LogSoftmaxCopiesStrides.apply,
        LogSoftmax.apply,
        lambda make: (make(3, 4),),
        "pytorch#64529",
    ),
    SeededBug(
        "rms_norm_walks_memory_of_input",
        "layout",
        RmsNormReadsMemoryOfInput.apply,
        RmsNorm.apply,
        lambda make: (make(3, 4), make(4)),
        "optimized-fused-ssim#1",
    ),
    SeededBug(
        "swish_zips_memory_of_input_and_grad_output",
        "layout",
        SwishZipsMemory.apply,
        Swish.apply,
        lambda make: (make(3, 4),),
        "pytorch#30303",
    ),
    SeededBug(
        "linear_walks_memory_of_transposed_weight",
        "layout",
        LinearReadsMemoryOfWeight.apply,
        Linear.apply,
        lambda make: (make(3, 4), make(6, 4), make(6)),
        "textbook",
    ),
    SeededBug(
        "embedding_views_indices",
        "layout",
        EmbeddingViewsIndex.apply,
        Embedding.apply,
        lambda make: (make(7, 4), torch.tensor([[5, 2, 0], [1, 6, 3]])),
        "pytorch#69997",
    ),
    SeededBug(
        "avg_pool2d_misreads_channels_last_grad_output",
        "layout",
        AvgPool2dMisreadsChannelsLast.apply,
        AvgPool2d.apply,
        lambda make: (make(2, 3, 4, 4),),
        "textbook",
    ),
    SeededBug(
        "matmul_takes_strided_grad_output_for_transposed",
        "layout",
        MatmulGuessesTransposed.apply,
        Matmul.apply,
        lambda make: (make(4, 3), make(3, 4)),
        "textbook",
    ),
    SeededBug(
        "exp_takes_partly_expanded_grad_output_for_scalar",
        "layout",
        ExpTakesExpandedForScalar.apply,
        Exp.apply,
        lambda make: (make(3, 4),),
        "pytorch#64529",
    ),
    SeededBug(
        "channel_bias_steps_by_plane",
        "layout",
        ChannelBiasStepsByPlane.apply,
        ChannelBias.apply,
        lambda make: (make(2, 3, 4, 2), make(3)),
        "textbook",
    ),
)
