"""Bugs that plain training hides: second order, transforms, subsets, dtypes, crashes.

The isolation bugs kill, hang or flood the process that runs their backward: never run
them in a process that you want to keep.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import torch
from torch import Tensor

from gradlab._opinfo import Make

from ._healthy_layers import (
    HALF,
    RMS_EPS,
    CrossEntropy,
    Embedding,
    Exp,
    Gelu,
    LayerNorm,
    Linear,
    LogSoftmax,
    Matmul,
    Multiply,
    Relu,
    RmsNorm,
    Sigmoid,
    Softmax,
    Softplus,
    Swish,
    Tanh,
    cross_entropy_backward,
    embedding_backward,
    fit,
    gelu_backward,
    layer_norm_backward,
    layer_norm_forward,
    layer_scale,
    layer_through,
    linear_backward,
    log_softmax_backward,
    matmul_backward,
    matmul_forward,
    relu_backward,
    rms_norm_backward,
    rows,
    softplus_backward,
    swish_backward,
    wide,
)
from ._seeded_bug import SeededBug

# --------------------------------------------------------------------- second order


class TanhSavesSlope(torch.autograd.Function):
    """Saves 1 - y² of the forward, a constant to the second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(1 - y.square())
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return grad_y * slope


class SoftmaxDetaches(Softmax):
    """Detaches the saved output "to save memory"."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        y = wide(ctx.saved_tensors[0].detach())
        g = wide(grad_y)
        return (y * (g - (g * y).sum(-1, keepdim=True))).to(grad_y.dtype)


class SwishUsesData(Swish):
    """`.data` of the saved input, as in code of torch 0.3."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        z = wide(ctx.saved_tensors[0].data)
        s = torch.sigmoid(z)
        return (wide(grad_y) * s * (1 + z * (1 - s))).to(grad_y.dtype)


class LayerNormSavesStatistics(torch.autograd.Function):
    """Saves mean and scale of the forward, constants to the second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, scale = wide(x).mean(-1, keepdim=True), layer_scale(x)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        return layer_norm_forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias, mean, scale = ctx.saved_tensors
        g, normal = wide(grad_y), (wide(x) - mean) * scale
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = layer_through(g * wide(weight), normal, scale).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = fit(g * normal, weight)
        if ctx.needs_input_grad[2]:
            grad_bias = fit(g, bias)
        return grad_x, grad_weight, grad_bias


class GeluUnderNoGrad(Gelu):
    """The slope is computed under `no_grad`."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            slope = Gelu.slope(x)
        return (wide(grad_y) * slope).to(x.dtype)


class ScaleTakesItem(Multiply):
    """The scale becomes a Python number, and a constant with it."""

    generate_vmap_rule = False

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, s = ctx.saved_tensors
        grad_x = grad_s = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_y * s.item()).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_s = fit(grad_y * x, s)
        return grad_x, grad_s


# ----------------------------------------------------------------------- transforms


class SwishWithTangent(Swish):
    """Swish with forward mode."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return swish_backward(ctx, tangent)


class SwishTangentOfSigmoid(SwishWithTangent):
    """The tangent lacks the term through the sigmoid."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * torch.sigmoid(x)


class MultiplyWithTangent(Multiply):
    """A product with forward mode."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, tangent_a: Any, tangent_b: Any) -> Any:
        a, b = ctx.saved_tensors
        terms = []
        if tangent_a is not None:
            terms.append(tangent_a * b)
        if tangent_b is not None:
            terms.append(a * tangent_b)
        return sum(terms[1:], terms[0])


class MultiplyTangentOfOne(MultiplyWithTangent):
    """With both tangents given, only the first is used."""

    @staticmethod
    def jvp(ctx: Any, tangent_a: Any, tangent_b: Any) -> Any:
        a, b = ctx.saved_tensors
        return a * tangent_b if tangent_a is None else tangent_a * b


class SoftmaxWithRule(Softmax):
    """Softmax with a vmap rule of its own."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
        return SoftmaxWithRule.apply(x.movedim(in_dims[0], 0)), 0


class SoftmaxRuleAssumesFirst(SoftmaxWithRule):
    """The rule takes the batch to be dimension 0, whatever `in_dims` says."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
        return SoftmaxRuleAssumesFirst.apply(x), 0


class MatmulWithRule(Matmul):
    """A product with a vmap rule of its own, for any batched operands."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, a: Tensor, b: Tensor) -> Any:
        dim_a, dim_b = in_dims
        if dim_b is None:
            return MatmulWithRule.apply(a.movedim(dim_a, 0), b), 0
        parts = [
            MatmulWithRule.apply(a if dim_a is None else a.select(dim_a, i), part)
            for i, part in enumerate(b.unbind(dim_b))
        ]
        return torch.stack(parts), 0


class MatmulRuleUsesFirstWeight(MatmulWithRule):
    """Of a batched second operand, the rule takes the first for all."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, a: Tensor, b: Tensor) -> Any:
        dim_a, dim_b = in_dims
        if dim_b is not None:
            b = b.select(dim_b, 0)
        if dim_a is None:
            a = a.expand(info.batch_size, *a.shape)
        return MatmulWithRule.apply(a.movedim(dim_a or 0, 0), b), 0


class ReluBranches(Relu):
    """Asks `.item()` for the sign of all, under a generated vmap rule."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if (y > 0).all().item():
            return grad_y
        return relu_backward(ctx, grad_y)


class GeluApproximatesCompiled(Gelu):
    """While compiling, the backward is that of the tanh approximation."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if not torch.compiler.is_compiling():
            return gelu_backward(ctx, grad_y)
        (x,) = ctx.saved_tensors
        z = wide(x)
        return (wide(grad_y) * torch.sigmoid(1.702 * z)).to(x.dtype)


# -------------------------------------------------------------------------- subsets


class LinearWastes(Linear):
    """All three gradients, whoever asks."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        grad_x = (grad_y @ weight.to(grad_y.dtype)).to(x.dtype)
        grad_weight = rows(grad_y).t() @ rows(x).to(grad_y.dtype)
        grad_bias = rows(grad_y).sum(0)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


class LinearAsksForBias(Linear):
    """The weight's gradient is asked for with the index of the bias."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        return grad_x, grad_weight if ctx.needs_input_grad[2] else None, grad_bias


class LayerNormFreezesAll(LayerNorm):
    """A frozen bias ends the backward early, without the weight's gradient."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = layer_norm_backward(ctx, grad_y)
        if grad_bias is None:
            return grad_x, torch.zeros_like(ctx.saved_tensors[1]), None
        return grad_x, grad_weight, grad_bias


class RmsNormCastsNone(RmsNorm):
    """Casts the weight's gradient, which is None when the weight is frozen."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight = rms_norm_backward(ctx, grad_y)
        return grad_x, grad_weight.to(ctx.saved_tensors[1].dtype)


class MatmulSavesNeeded(torch.autograd.Function):
    """A product that saves only the operands that some gradient needs."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        need_a, need_b = ctx.needs_input_grad
        ctx.save_for_backward(a if need_b else None, b if need_a else None)
        ctx.dtypes = a.dtype, b.dtype
        return matmul_forward(a, b)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        if b is not None:
            grad_a = (grad_y @ b.to(grad_y.dtype).t()).to(ctx.dtypes[0])
        if a is not None:
            grad_b = rows(a).to(grad_y.dtype).t() @ rows(grad_y)
            grad_b = grad_b.to(ctx.dtypes[1])
        return grad_a, grad_b


class MatmulSavesTheOther(MatmulSavesNeeded):
    """Saves an operand if it needs a gradient itself; the other's gradient needs it."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        need_a, need_b = ctx.needs_input_grad
        ctx.save_for_backward(a if need_a else None, b if need_b else None)
        ctx.dtypes = a.dtype, b.dtype
        return matmul_forward(a, b)


class SplitHalves(torch.autograd.Function):
    """Two halves of the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        half = x.shape[-1] // 2
        left, right = x[..., :half].clone(), x[..., half:].clone()
        ctx.shapes = left.shape, right.shape
        return left, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        some = [grad for grad in grads if grad is not None]
        if not some:
            return None
        filled = [
            some[0].new_zeros(shape) if grad is None else grad
            for grad, shape in zip(grads, ctx.shapes, strict=True)
        ]
        return torch.cat(filled, -1)


class SplitHalvesConcatenates(SplitHalves):
    """Concatenates the gradients, one of which is None when its half is not used."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if all(grad is None for grad in grads):
            return None
        return torch.cat(grads, -1)  # type: ignore


class SinCos(torch.autograd.Function):
    """The sine and the cosine of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        (x,) = ctx.saved_tensors
        grad_sin, grad_cos = grads
        terms = []
        if grad_sin is not None:
            terms.append(wide(grad_sin) * wide(x).cos())
        if grad_cos is not None:
            terms.append(-wide(grad_cos) * wide(x).sin())
        return sum(terms[1:], terms[0]).to(x.dtype) if terms else None


_sin_cos_backward = SinCos.backward


class SinCosGivesUp(SinCos):
    """One gradient that is None makes the whole gradient None."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return None if None in grads else _sin_cos_backward(ctx, *grads)


# ------------------------------------------------------------------ autocast, dtypes


class LinearMixesDtypes(Linear):
    """bfloat16 grad_output of an autocast forward times a float32 weight."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_x is not None:
            grad_x = grad_y @ weight
        if grad_weight is not None:
            grad_weight = rows(grad_y).t() @ rows(x)
        return grad_x, grad_weight, grad_bias


class MatmulInFloat32(torch.autograd.Function):
    """A product that autocast leaves in float32, forward and backward."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return matmul_forward(a, b)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return matmul_backward(ctx, grad_y)


class MatmulForgetsCustomBwd(MatmulInFloat32):
    """`custom_fwd` without `custom_bwd`: under autocast the backward is bfloat16."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return matmul_backward(ctx, grad_y)


class SoftmaxCastsToAutocast(Softmax):
    """The backward asks whether autocast is on *now*, and casts to its dtype."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if torch.is_autocast_enabled("cpu"):
            y = y.to(torch.get_autocast_dtype("cpu"))
        g = grad_y.to(y.dtype)
        return (y * (g - (g * y).sum(-1, keepdim=True))).to(grad_y.dtype)


class LinearSumsInHalf(Linear):
    """Half precision biases add up row after row: 256 + 1 is 256 in bfloat16."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_bias is not None and grad_bias.dtype in HALF:
            grad_bias = torch.zeros_like(grad_bias)
            for row in rows(grad_y):
                grad_bias = grad_bias + row
        return grad_x, grad_weight, grad_bias


class TanhInFloat32(Tanh):
    """Computes in float32, whatever the input: float64 loses half its digits."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        y = ctx.saved_tensors[0].float()
        return (grad_y.float() * (1 - y.square())).to(grad_y.dtype)


class MatmulOnTensorCores(Matmul):
    """float32 operands are rounded to bfloat16 for a faster product."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        if grad_y.dtype == torch.float32:
            grads = matmul_backward(ctx, grad_y.bfloat16())
            return tuple(None if grad is None else grad.float() for grad in grads)
        return matmul_backward(ctx, grad_y)


class EmbeddingInDouble(Embedding):
    """`zeros(..., dtype=float64)`: no other dtype can be added to it."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        zeros = torch.zeros(ctx.shape, dtype=torch.float64)
        return zeros.index_add(0, index.reshape(-1), rows(grad_y)), None


class RmsNormSquaresInHalf(RmsNorm):
    """Squares in the dtype of x: float16 overflows from 256 on."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = rms_norm_backward(ctx, grad_y)
        if grad_x is not None:
            scale = (x.square().mean(-1, keepdim=True) + RMS_EPS).rsqrt()
            h, normal = wide(grad_y) * wide(weight), wide(x) * wide(scale)
            inner = (h * normal).mean(-1, keepdim=True)
            grad_x = (wide(scale) * (h - normal * inner)).to(x.dtype)
        return grad_x, grad_weight


class SoftplusClampsFloat32(Softplus):
    """Clamps to the largest exponent of float32: half precision overflows before."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if x.dtype != torch.float16:
            return softplus_backward(ctx, grad_y)
        e = x.clamp(max=80).exp()
        return grad_y * e / (1 + e)


# ----------------------------------------------------------------------------- raw


class LinearDoesNotSumBias(Linear):
    """grad_output itself for the bias: the engine sums it, in silence."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        return grad_x, grad_weight, None if grad_bias is None else grad_y


class MultiplyDoesNotSum(Multiply):
    """Gradients of a broadcast product keep the shape of the product."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        needs = ctx.needs_input_grad
        grad_a = (grad_y * b).to(a.dtype) if needs[0] else None
        grad_b = (grad_y * a).to(b.dtype) if needs[1] else None
        return grad_a, grad_b


class LayerNormSumsFirstDim(LayerNorm):
    """The bias is summed over dimension 0 only, of three."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, _, bias = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = layer_norm_backward(ctx, grad_y)
        if grad_bias is not None and x.ndim > 1:
            grad_bias = wide(grad_y).sum(0).to(bias.dtype)
        return grad_x, grad_weight, grad_bias


class SigmoidReturnsFloat32(Sigmoid):
    """Half precision is computed in float32, and returned so."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return wide(grad_y) * wide(y) * (1 - wide(y))


class LogSoftmaxReturnsTwo(LogSoftmax):
    """A gradient for an input that there no longer is."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return log_softmax_backward(ctx, grad_y), grad_y.sum()


class CrossEntropyReturnsOne(CrossEntropy):
    """No None for the targets: one gradient for two inputs."""

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        return cross_entropy_backward(ctx, grad_loss)[0]


class EmbeddingReturnsIndexGradient(Embedding):
    """A tensor of zeros for the indices, instead of None."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        return embedding_backward(ctx, grad_y)[0], torch.zeros_like(index)


# ------------------------------------------------------------------------ isolation


class ExpExits(Exp):
    """The backward ends the process, as a failed assertion in C does."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        os._exit(3)


class ReluSegfaults(Relu):
    """The backward reads address 0."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        ctypes.string_at(0)
        return relu_backward(ctx, grad_y)


class SwishNeverReturns(Swish):
    """Newton's iteration in the backward, without a limit, waits for an exact 0."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        error = 1.0
        while error > 0:
            error = error / 2 + 1e-9
            time.sleep(1e-3)
        return swish_backward(ctx, grad_y)


class TanhEatsMemory(Tanh):
    """The backward keeps 8 MiB more in every step, and never ends."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        kept = []
        while True:
            kept.append(torch.ones(1 << 20, dtype=torch.float64))
            time.sleep(2e-2)  # slow enough for a time limit to be first


class GeluRecursesTwice(Gelu):
    """The second derivative applies the function again, without end."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            with torch.enable_grad():
                (grad_x,) = torch.autograd.grad(
                    GeluRecursesTwice.apply(x), x, grad_y, create_graph=True
                )
            return grad_x
        return gelu_backward(ctx, grad_y)


def _linear(make: Make) -> tuple[Any, ...]:
    return make(3, 4), make(6, 4), make(6)


bugs = (
    SeededBug(
        "tanh_saves_slope_of_forward",
        "second_order",
        TanhSavesSlope.apply,
        Tanh.apply,
        lambda make: (make(3, 4),),
        "pytorch#58509",
    ),
    SeededBug(
        "softmax_detaches_saved_output",
        "second_order",
        SoftmaxDetaches.apply,
        Softmax.apply,
        lambda make: (make(3, 4),),
        "pytorch#76185",
    ),
    SeededBug(
        "swish_uses_data_of_saved_input",
        "second_order",
        SwishUsesData.apply,
        Swish.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "layer_norm_saves_statistics_of_forward",
        "second_order",
        LayerNormSavesStatistics.apply,
        LayerNorm.apply,
        lambda make: (make(3, 4), make(4), make(4)),
        "pytorch#104040",
    ),
    SeededBug(
        "gelu_computes_slope_under_no_grad",
        "second_order",
        GeluUnderNoGrad.apply,
        Gelu.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "scale_becomes_python_number",
        "second_order",
        ScaleTakesItem.apply,
        Multiply.apply,
        lambda make: (make(3, 4), make()),
        "textbook",
    ),
    SeededBug(
        "swish_jvp_misses_term",
        "transform",
        SwishTangentOfSigmoid.apply,
        SwishWithTangent.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "multiply_jvp_uses_one_tangent",
        "transform",
        MultiplyTangentOfOne.apply,
        MultiplyWithTangent.apply,
        lambda make: (make(3, 4), make(3, 4)),
        "textbook",
    ),
    SeededBug(
        "softmax_vmap_rule_ignores_in_dims",
        "transform",
        SoftmaxRuleAssumesFirst.apply,
        SoftmaxWithRule.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "matmul_vmap_rule_uses_first_weight",
        "transform",
        MatmulRuleUsesFirstWeight.apply,
        MatmulWithRule.apply,
        lambda make: (make(3, 4), make(4, 6)),
        "textbook",
    ),
    SeededBug(
        "relu_takes_item_under_generated_vmap_rule",
        "transform",
        ReluBranches.apply,
        Relu.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "gelu_approximates_while_compiling",
        "transform",
        GeluApproximatesCompiled.apply,
        Gelu.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "linear_ignores_needs_input_grad",
        "subset",
        LinearWastes.apply,
        Linear.apply,
        lambda make: (make(16, 24), make(32, 24), make(32)),
        "apex#1517",
    ),
    SeededBug(
        "linear_asks_for_weight_with_index_of_bias",
        "subset",
        LinearAsksForBias.apply,
        Linear.apply,
        _linear,
        "torchao#4471",
    ),
    SeededBug(
        "layer_norm_zero_weight_gradient_when_bias_frozen",
        "subset",
        LayerNormFreezesAll.apply,
        LayerNorm.apply,
        lambda make: (make(3, 4), make(4), make(4)),
        "textbook",
    ),
    SeededBug(
        "rms_norm_casts_none_when_weight_frozen",
        "subset",
        RmsNormCastsNone.apply,
        RmsNorm.apply,
        lambda make: (make(3, 4), make(4)),
        "torchsparsegradutils#31",
    ),
    SeededBug(
        "matmul_saves_operand_by_its_own_need",
        "subset",
        MatmulSavesTheOther.apply,
        MatmulSavesNeeded.apply,
        lambda make: (make(3, 4), make(4, 6)),
        "textbook",
    ),
    SeededBug(
        "split_concatenates_none_of_unused_half",
        "subset",
        SplitHalvesConcatenates.apply,
        SplitHalves.apply,
        lambda make: (make(3, 4),),
        "dfdx#303",
    ),
    SeededBug(
        "sin_cos_gives_up_when_one_is_unused",
        "subset",
        SinCosGivesUp.apply,
        SinCos.apply,
        lambda make: (make(3, 4),),
        "dfdx#303",
    ),
    SeededBug(
        "linear_mixes_dtypes_under_autocast",
        "autocast",
        LinearMixesDtypes.apply,
        Linear.apply,
        _linear,
        "pytorch#87979",
    ),
    SeededBug(
        "matmul_forgets_custom_bwd",
        "autocast",
        MatmulForgetsCustomBwd.apply,
        MatmulInFloat32.apply,
        lambda make: (make(3, 4), make(4, 6)),
        "pytorch#47906",
    ),
    SeededBug(
        "softmax_backward_casts_to_autocast_dtype",
        "autocast",
        SoftmaxCastsToAutocast.apply,
        Softmax.apply,
        lambda make: (make(3, 4),),
        "apex#488",
    ),
    SeededBug(
        "linear_bias_adds_up_in_bfloat16",
        "dtype",
        LinearSumsInHalf.apply,
        Linear.apply,
        lambda make: (make(512, 2), make(3, 2), make(3)),
        "textbook",
    ),
    SeededBug(
        "tanh_backward_in_float32",
        "dtype",
        TanhInFloat32.apply,
        Tanh.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "matmul_backward_rounds_float32_to_bfloat16",
        "dtype",
        MatmulOnTensorCores.apply,
        Matmul.apply,
        lambda make: (make(3, 4), make(4, 6)),
        "textbook",
    ),
    SeededBug(
        "embedding_hard_codes_float64",
        "dtype",
        EmbeddingInDouble.apply,
        Embedding.apply,
        lambda make: (make(7, 4), torch.tensor([5, 2, 0, 6])),
        "textbook",
    ),
    SeededBug(
        "rms_norm_squares_overflow_float16",
        "dtype",
        RmsNormSquaresInHalf.apply,
        RmsNorm.apply,
        lambda make: (make(3, 4), make(4)),
        "textbook",
    ),
    SeededBug(
        "softplus_overflows_float16",
        "dtype",
        SoftplusClampsFloat32.apply,
        Softplus.apply,
        lambda make: (make(3, 4, scale=4.0),),
        "textbook",
    ),
    SeededBug(
        "linear_returns_unsummed_bias_gradient",
        "raw",
        LinearDoesNotSumBias.apply,
        Linear.apply,
        lambda make: (make(5, 4), make(4, 4), make(4)),
        "flashlight#760",
    ),
    SeededBug(
        "multiply_returns_unsummed_broadcast_gradient",
        "raw",
        MultiplyDoesNotSum.apply,
        Multiply.apply,
        lambda make: (make(3, 4), make(3, 1)),
        "tfjs#8721",
    ),
    SeededBug(
        "layer_norm_sums_bias_over_first_dim_only",
        "raw",
        LayerNormSumsFirstDim.apply,
        LayerNorm.apply,
        lambda make: (make(2, 3, 4), make(4), make(4)),
        "tt-metal#40008",
    ),
    SeededBug(
        "sigmoid_returns_float32_for_bfloat16",
        "raw",
        SigmoidReturnsFloat32.apply,
        Sigmoid.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "log_softmax_returns_one_gradient_too_many",
        "raw",
        LogSoftmaxReturnsTwo.apply,
        LogSoftmax.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "cross_entropy_returns_one_gradient_too_few",
        "raw",
        CrossEntropyReturnsOne.apply,
        CrossEntropy.apply,
        lambda make: (make(4, 6), torch.tensor([2, 0, 5, 3])),
        "textbook",
    ),
    SeededBug(
        "embedding_returns_gradient_of_indices",
        "raw",
        EmbeddingReturnsIndexGradient.apply,
        Embedding.apply,
        lambda make: (make(7, 4), torch.tensor([5, 2, 0, 6])),
        "textbook",
    ),
    SeededBug(
        "exp_backward_exits_process",
        "isolation",
        ExpExits.apply,
        Exp.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "relu_backward_segfaults",
        "isolation",
        ReluSegfaults.apply,
        Relu.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "swish_backward_never_returns",
        "isolation",
        SwishNeverReturns.apply,
        Swish.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "tanh_backward_eats_memory",
        "isolation",
        TanhEatsMemory.apply,
        Tanh.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "gelu_second_derivative_recurses",
        "isolation",
        GeluRecursesTwice.apply,
        Gelu.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
)
