"""Bugs of state: what a backward writes, keeps or draws that it should not."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gradlab._opinfo import Make

from ._healthy_layers import (
    CrossEntropy,
    Embedding,
    Gelu,
    Layer,
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
    fit,
    gelu_backward,
    linear_backward,
    matmul_backward,
    multiply_backward,
    rms_norm_forward,
    rms_scale,
    rows,
    swish_backward,
    wide,
)
from ._seeded_bug import SeededBug


class ReluMasksInPlace(Relu):
    """Zeroes grad_output itself where x <= 0, and returns it."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        grad_y[y <= 0] = 0
        return grad_y


class SigmoidScalesContiguous(Sigmoid):
    """`contiguous()` is taken for a copy, and multiplied in place."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g = grad_y.contiguous()
        return g.mul_(y * (1 - y))


class SoftmaxShiftsInput(Softmax):
    """Subtracts the maximum from the input in place: y is right, x is not x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.softmax(x.sub_(x.amax(-1, keepdim=True)), -1)


class RmsNormNormalisesSaved(RmsNorm):
    """The backward normalises the saved input in place, which is the caller's."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        scale = rms_scale(x).to(x.dtype)
        normal = x.data.mul_(scale)  # unseen by the version counter
        g = wide(grad_y)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            h = g * wide(weight)
            inner = (h * normal).mean(-1, keepdim=True)
            grad_x = (scale * (h - normal * inner)).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = fit(g * normal, weight)
        return grad_x, grad_weight


class CrossEntropyAhead(torch.autograd.Function):
    """Cross entropy whose forward already computes the gradient of the scores."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        counted = target != -100
        n = counted.sum().clamp(min=1)
        grad = CrossEntropy.difference(x, target) / n
        counted = counted.unsqueeze(min(x.ndim - 1, 1))
        ctx.save_for_backward(torch.where(counted, grad, 0.0))
        ctx.dtype = x.dtype
        return F.cross_entropy(x, target)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        (grad,) = ctx.saved_tensors
        return (grad * wide(grad_loss)).to(ctx.dtype), None


class CrossEntropyScalesSaved(CrossEntropyAhead):
    """Scales the saved gradient in place: the second backward scales it again."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        (grad,) = ctx.saved_tensors
        return grad.data.mul_(grad_loss).to(ctx.dtype), None


class TanhOnClass(Tanh):
    """The output is kept on the class: the layer used twice has only the last."""

    y: Tensor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        TanhOnClass.y = output.detach()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y * (1 - TanhOnClass.y.square())


class TanhPopsStack(Tanh):
    """Outputs wait on a stack of the class: right only for last in, first out."""

    stack: ClassVar[list[Tensor]] = []

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        TanhPopsStack.stack.append(output.detach())

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y * (1 - TanhPopsStack.stack.pop().square())


class SwishReturnsWorkspace(Swish):
    """Every backward returns the same buffer, which the next one overwrites."""

    buffers: ClassVar[dict[Any, Tensor]] = {}

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        key = (grad_y.shape, grad_y.dtype)
        if key not in SwishReturnsWorkspace.buffers:
            SwishReturnsWorkspace.buffers[key] = torch.empty_like(grad_y)
        buffer = SwishReturnsWorkspace.buffers[key]
        return buffer.copy_(swish_backward(ctx, grad_y))


class RmsNormOnce(Layer):
    """The healthy twin that saves the scale its forward computed."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return rms_norm_forward(x, weight), rms_scale(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, _: Any) -> Any:
        x, weight, scale = ctx.saved_tensors
        g, normal = wide(grad_y), wide(x) * scale
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            h = g * wide(weight)
            inner = (h * normal).mean(-1, keepdim=True)
            grad_x = (scale * (h - normal * inner)).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = fit(g * normal, weight)
        return grad_x, grad_weight


_rms_norm_once_forward = RmsNormOnce.forward


class RmsNormReusesWorkspace(RmsNormOnce):
    """The scale is saved in a workspace that the next forward of its shape fills."""

    workspaces: ClassVar[dict[Any, Tensor]] = {}

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        y, scale = _rms_norm_once_forward(x, weight)
        key = (scale.shape, scale.dtype)
        kept = RmsNormReusesWorkspace.workspaces.setdefault(key, scale)
        kept.data.copy_(scale)
        return y, kept.detach()


def _first(function: Any) -> Any:
    """Returns `function` without its second output."""
    return lambda x, weight: function.apply(x, weight)[0]


class LeakyRelu(torch.autograd.Function):
    """y = max(x, x / 10)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = 0.1
        return F.leaky_relu(x, ctx.slope)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, grad_y, ctx.slope * grad_y)


_leaky_relu_backward = LeakyRelu.backward


class LeakyReluCleansUp(LeakyRelu):
    """Deletes an attribute of ctx, that a second backward would need."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x = _leaky_relu_backward(ctx, grad_y)
        del ctx.slope
        return grad_x


class LinearAccumulatesItself(Linear):
    """Adds to `weight.grad` by itself, and returns the gradient all the same."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.leaf = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = linear_backward(ctx, grad_y)
        if grad_weight is not None and ctx.leaf.is_leaf:
            grad = grad_weight.detach()
            ctx.leaf.grad = grad if ctx.leaf.grad is None else ctx.leaf.grad + grad
        return grad_x, grad_weight, grad_bias


class Divide(Layer):
    """y = a / b, with broadcasting."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a / b

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        g = wide(grad_y) / wide(b)
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = fit(g, a)
        if ctx.needs_input_grad[1]:
            grad_b = fit(-g * (wide(a) / wide(b)), b)
        return grad_a, grad_b


_divide_backward = Divide.backward


class DivideByAddress(Divide):
    """Gradients are kept in a dict by address: a / a has one entry for two."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        inputs = ctx.saved_tensors
        grads = _divide_backward(ctx, grad_y)
        found = {x.data_ptr(): g for x, g in zip(inputs, grads, strict=True)}
        return tuple(
            found[x.data_ptr()] if need else None
            for x, need in zip(inputs, ctx.needs_input_grad, strict=True)
        )


class CenterFunction(torch.autograd.Function):
    """y = x - mean over the batch in training, x - running mean in evaluation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module) -> Tensor:
        ctx.module = module
        ctx.training = module.training
        return x - (x.mean(0) if module.training else 0.0)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y - grad_y.mean(0) if ctx.training else grad_y, None


class CenterReadsFlag(CenterFunction):
    """Reads `module.training` in the backward: `eval()` may have been called since."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return grad_y - grad_y.mean(0) if ctx.module.training else grad_y, None


class Center(nn.Module):
    """Centers a batch, in training."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x, self)


class GeluKeepsInput(Gelu):
    """The input is an attribute of ctx: nothing frees it after the backward."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.x = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return (wide(grad_y) * Gelu.slope(ctx.x)).to(ctx.x.dtype)


class SigmoidKeepsOutput(Sigmoid):
    """The output is an attribute of ctx, a cycle of references: it is never freed."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.y = output

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        g, y = wide(grad_y), wide(ctx.y)
        return (g * y * (1 - y)).to(grad_y.dtype)


class LogSoftmaxCaches(LogSoftmax):
    """A cache of the class gets the output of every forward, and loses none."""

    cache: ClassVar[dict[int, Tensor]] = {}

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)
        LogSoftmaxCaches.cache[len(LogSoftmaxCaches.cache)] = output.detach().clone()


class MatmulRemembersGradients(Matmul):
    """Every grad_output is kept in a list, "to look at it later"."""

    history: ClassVar[list[Tensor]] = []

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        MatmulRemembersGradients.history.append(grad_y)
        return matmul_backward(ctx, grad_y)


class Dropout(torch.autograd.Function):
    """Dropout of one half whose mask is a function of a seed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: int) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(seed)
        keep = torch.rand(x.shape, device=x.device, generator=generator) < 0.5
        ctx.save_for_backward(keep)
        return torch.where(keep, 2 * x, 0.0)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (keep,) = ctx.saved_tensors
        return torch.where(keep, 2 * grad_y, 0.0), None


class DropoutRedraws(Dropout):
    """The backward draws a mask of its own, from the global generator."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        keep = torch.rand(grad_y.shape, device=grad_y.device) < 0.5
        return torch.where(keep, 2 * grad_y, 0.0), None


class GeluRarelyNoisy(Gelu):
    """One call of three, the gradient is off by a thousandth, as by a race."""

    calls = 0

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x = gelu_backward(ctx, grad_y)
        GeluRarelyNoisy.calls += 1
        if GeluRarelyNoisy.calls % 3 == 0:
            grad_x = grad_x + 1e-3 * torch.randn_like(grad_x)
        return grad_x


class EmbeddingUninitialised(Embedding):
    """The rows that no index names are whatever `empty` found in memory."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        g, flat = rows(wide(grad_y)), index.reshape(-1)
        grad = g.new_empty(ctx.shape).index_fill(0, flat, 0.0)
        return grad.index_add(0, flat, g).to(grad_y.dtype), None


class MultiplyTunes(Multiply):
    """The first call of a shape times three trials, which all add to the result."""

    tuned: ClassVar[set[Any]] = set()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grads = multiply_backward(ctx, grad_y)
        if grad_y.shape in MultiplyTunes.tuned:
            return grads
        MultiplyTunes.tuned.add(grad_y.shape)
        return tuple(None if grad is None else grad * 3 for grad in grads)


def _untuned(make: Make) -> tuple[Any, ...]:
    MultiplyTunes.tuned.clear()
    return make(3, 4), make(3, 4)


class SoftplusSometimesHalf(Softplus):
    """Another kernel of less precision takes every other call."""

    fast = False

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        SoftplusSometimesHalf.fast = not SoftplusSometimesHalf.fast
        dtype = torch.bfloat16 if SoftplusSometimesHalf.fast else x.dtype
        return grad_y * torch.sigmoid(x.to(dtype)).to(x.dtype)


bugs = (
    SeededBug(
        "relu_masks_grad_output_in_place",
        "state",
        ReluMasksInPlace.apply,
        Relu.apply,
        lambda make: (make(3, 4),),
        "pytorch#81417",
    ),
    SeededBug(
        "sigmoid_multiplies_contiguous_grad_output_in_place",
        "state",
        SigmoidScalesContiguous.apply,
        Sigmoid.apply,
        lambda make: (make(3, 4),),
        "pytorch#81417",
    ),
    SeededBug(
        "softmax_shifts_input_in_place",
        "state",
        SoftmaxShiftsInput.apply,
        Softmax.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "rms_norm_normalises_saved_input_in_place",
        "state",
        RmsNormNormalisesSaved.apply,
        RmsNorm.apply,
        lambda make: (make(3, 4), make(4)),
        "Liger-Kernel#1251",
    ),
    SeededBug(
        "cross_entropy_scales_saved_gradient_in_place",
        "state",
        CrossEntropyScalesSaved.apply,
        CrossEntropyAhead.apply,
        lambda make: (make(4, 6), torch.tensor([2, 0, 5, 3])),
        "Liger-Kernel#254",
    ),
    SeededBug(
        "tanh_keeps_output_on_class",
        "state",
        TanhOnClass.apply,
        Tanh.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "tanh_pops_outputs_from_stack_of_class",
        "state",
        TanhPopsStack.apply,
        Tanh.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "swish_returns_workspace_as_gradient",
        "state",
        SwishReturnsWorkspace.apply,
        Swish.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "rms_norm_saves_reused_workspace",
        "state",
        _first(RmsNormReusesWorkspace),
        _first(RmsNormOnce),
        lambda make: (make(3, 4), make(4)),
        "textbook",
    ),
    SeededBug(
        "leaky_relu_deletes_slope_from_ctx",
        "state",
        LeakyReluCleansUp.apply,
        LeakyRelu.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "linear_adds_to_weight_grad_itself",
        "state",
        LinearAccumulatesItself.apply,
        Linear.apply,
        lambda make: (make(3, 4), make(6, 4), make(6)),
        "textbook",
    ),
    SeededBug(
        "divide_keys_gradients_by_address",
        "state",
        DivideByAddress.apply,
        Divide.apply,
        lambda make: (make(3, 4), make(3, 4)),
        "pytorch#181146",
    ),
    SeededBug(
        "center_reads_training_flag_in_backward",
        "state",
        Center(CenterReadsFlag),
        Center(CenterFunction),
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "gelu_keeps_input_on_ctx",
        "memory",
        GeluKeepsInput.apply,
        Gelu.apply,
        lambda make: (make(3, 4),),
        "sru#171",
    ),
    SeededBug(
        "sigmoid_keeps_output_on_ctx",
        "memory",
        SigmoidKeepsOutput.apply,
        Sigmoid.apply,
        lambda make: (make(3, 4),),
        "pytorch#25340",
    ),
    SeededBug(
        "log_softmax_cache_grows",
        "memory",
        LogSoftmaxCaches.apply,
        LogSoftmax.apply,
        lambda make: (make(3, 4),),
        "textbook",
    ),
    SeededBug(
        "matmul_remembers_every_grad_output",
        "memory",
        MatmulRemembersGradients.apply,
        Matmul.apply,
        lambda make: (make(3, 4), make(4, 6)),
        "textbook",
    ),
    SeededBug(
        "dropout_redraws_mask_in_backward",
        "determinism",
        DropoutRedraws.apply,
        Dropout.apply,
        lambda make: (make(4, 6), 3),
        "flash-attention#359",
    ),
    SeededBug(
        "gelu_noisy_one_call_of_three",
        "determinism",
        GeluRarelyNoisy.apply,
        Gelu.apply,
        lambda make: (make(3, 4),),
        "TileOPs#1729",
    ),
    SeededBug(
        "embedding_leaves_rows_uninitialised",
        "determinism",
        EmbeddingUninitialised.apply,
        Embedding.apply,
        lambda make: (make(7, 4), torch.tensor([5, 2, 0])),
        "textbook",
    ),
    SeededBug(
        "multiply_adds_up_trials_of_tuner",
        "determinism",
        MultiplyTunes.apply,
        Multiply.apply,
        _untuned,
        "triton#8454",
    ),
    SeededBug(
        "softplus_alternates_between_kernels",
        "determinism",
        SoftplusSometimesHalf.apply,
        Softplus.apply,
        lambda make: (make(3, 4),),
        "fla#889",
    ),
)
