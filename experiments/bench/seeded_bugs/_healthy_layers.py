"""Layers with an impeccable backward: the healthy twins that several bugs share.

Each backward is differentiable torch ops on saved inputs and outputs, takes any layout,
leading dimensions and empty batches, computes half precision in float32 as native
kernels do (`wide`), products in the dtype that the forward ran in (autocast), and only
the gradients that `needs_input_grad` asks for. A wrong class overrides what it breaks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = (torch.float16, torch.bfloat16)


def wide(x: Tensor) -> Tensor:
    """Returns half precision as float32 and everything else as it is."""
    return x.float() if x.dtype in HALF else x


def rows(x: Tensor) -> Tensor:
    """Returns `x` (*, n) as a matrix (N, n), for an empty batch too."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def fit(grad: Tensor, x: Tensor) -> Tensor:
    """Returns `grad` in the shape and the dtype of `x`: what broadcast is summed."""
    return grad.sum_to_size(x.shape).to(x.dtype)


class Layer(torch.autograd.Function):
    """Saves every tensor that goes in, and nothing else."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))


class SavesOutput(torch.autograd.Function):
    """Saves its one output, and nothing else."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)


class Relu(SavesOutput):
    """y = max(x, 0)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.relu(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.where(y > 0, grad_y, 0.0)


relu_backward = Relu.backward


class Tanh(SavesOutput):
    """y = tanh(x)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * (1 - wide(y).square())).to(grad_y.dtype)


class Sigmoid(SavesOutput):
    """y = 1 / (1 + exp(-x))."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return (wide(grad_y) * wide(y) * (1 - wide(y))).to(grad_y.dtype)


class Exp(SavesOutput):
    """y = exp(x)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.exp(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return grad_y * y


class Swish(Layer):
    """y = x sigmoid(x)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.silu(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(wide(x))
        return (wide(grad_y) * s * (1 + wide(x) * (1 - s))).to(x.dtype)


swish_backward = Swish.backward


class Gelu(Layer):
    """y = x Φ(x), exact."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.gelu(x)

    @staticmethod
    def slope(x: Tensor) -> Tensor:
        """Returns Φ(x) + x φ(x)."""
        z = wide(x)
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        return (1 + torch.erf(z / math.sqrt(2))) / 2 + z * density

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * Gelu.slope(x)).to(x.dtype)


gelu_backward = Gelu.backward


class Softplus(Layer):
    """y = log(1 + exp(x))."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.logaddexp(x, torch.zeros_like(x))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (wide(grad_y) * torch.sigmoid(wide(x))).to(x.dtype)


softplus_backward = Softplus.backward


class Softmax(SavesOutput):
    """Softmax of the last dimension."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.softmax(x, -1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g, z = wide(grad_y), wide(y)
        return (z * (g - (g * z).sum(-1, keepdim=True))).to(y.dtype)


class LogSoftmax(SavesOutput):
    """Logarithm of the softmax of the last dimension."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.log_softmax(x, -1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g = wide(grad_y)
        return (g - wide(y).exp() * g.sum(-1, keepdim=True)).to(y.dtype)


log_softmax_backward = LogSoftmax.backward


class Multiply(Layer):
    """y = a b, with broadcasting."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a * b

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = fit(grad_y * b, a)
        if ctx.needs_input_grad[1]:
            grad_b = fit(grad_y * a, b)
        return grad_a, grad_b


multiply_backward = Multiply.backward


class Matmul(Layer):
    """y = a b, of (*, n) and a matrix."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        if b.ndim != 2:
            raise ValueError("b must be a matrix")
        return a @ b

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = (grad_y @ b.to(grad_y.dtype).t()).to(a.dtype)
        if ctx.needs_input_grad[1]:
            grad_b = (rows(a).to(grad_y.dtype).t() @ rows(grad_y)).to(b.dtype)
        return grad_a, grad_b


matmul_forward = Matmul.forward


matmul_backward = Matmul.backward


class Linear(Layer):
    """y = x Wᵀ + b."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError("weight must be (out, in) and bias (out)")
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_y @ weight.to(grad_y.dtype)).to(x.dtype)
        if ctx.needs_input_grad[1]:
            product = rows(grad_y).t() @ rows(x).to(grad_y.dtype)
            grad_weight = product.to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = rows(grad_y).sum(0).to(bias.dtype)
        return grad_x, grad_weight, grad_bias


linear_backward = Linear.backward


RMS_EPS = 1e-10


def rms_scale(x: Tensor) -> Tensor:
    """Returns 1 / sqrt(mean(x²) + eps)."""
    return (wide(x).square().mean(-1, keepdim=True) + RMS_EPS).rsqrt()


def rms_normal(x: Tensor) -> Tensor:
    """Returns x / sqrt(mean(x²) + eps)."""
    return wide(x) * rms_scale(x)


class RmsNorm(Layer):
    """y = w x / sqrt(mean(x²) + eps), along the last dimension."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        if weight.shape != x.shape[-1:]:
            raise ValueError("weight must be of the last dimension of x")
        return (rms_normal(x) * wide(weight)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        g, normal = wide(grad_y), rms_normal(x)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            h = g * wide(weight)
            inner = (h * normal).mean(-1, keepdim=True)
            grad_x = (rms_scale(x) * (h - normal * inner)).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = fit(g * normal, weight)
        return grad_x, grad_weight


rms_norm_forward = RmsNorm.forward


rms_norm_backward = RmsNorm.backward


def layer_scale(x: Tensor) -> Tensor:
    """Returns 1 / sqrt(var + eps)."""
    return (wide(x).var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()


def layer_normal(x: Tensor) -> Tensor:
    """Returns (x - mean) / sqrt(var + eps)."""
    return (wide(x) - wide(x).mean(-1, keepdim=True)) * layer_scale(x)


def layer_through(h: Tensor, normal: Tensor, scale: Tensor) -> Tensor:
    """Returns the gradient of x from `h`, that of the normalised x."""
    inner = (h * normal).mean(-1, keepdim=True)
    return scale * (h - h.mean(-1, keepdim=True) - normal * inner)


class LayerNorm(Layer):
    """y = w (x - mean) / sqrt(var + eps) + b, along the last dimension."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if not weight.shape == bias.shape == x.shape[-1:]:
            raise ValueError("weight and bias must be of the last dimension of x")
        return (layer_normal(x) * wide(weight) + wide(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        g, normal = wide(grad_y), layer_normal(x)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            scale = layer_scale(x)
            grad_x = layer_through(g * wide(weight), normal, scale).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = fit(g * normal, weight)
        if ctx.needs_input_grad[2]:
            grad_bias = fit(g, bias)
        return grad_x, grad_weight, grad_bias


layer_norm_forward = LayerNorm.forward


layer_norm_backward = LayerNorm.backward


class Embedding(torch.autograd.Function):
    """y = weight[index]."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = weight.shape
        return F.embedding(index, weight)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        g = rows(wide(grad_y))
        summed = g.new_zeros(ctx.shape).index_add(0, index.reshape(-1), g)
        return summed.to(grad_y.dtype), None


embedding_backward = Embedding.backward


class CrossEntropy(Layer):
    """Mean of -log softmax(x)[target] over the targets that are not -100."""

    @staticmethod
    def forward(x: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(x, target)

    @staticmethod
    def difference(x: Tensor, target: Tensor) -> Tensor:
        """Returns softmax(x) - one_hot(target)."""
        classes = min(x.ndim - 1, 1)
        at = target.clamp(min=0).unsqueeze(classes)
        p = torch.softmax(wide(x), classes)
        return p - torch.zeros_like(p).scatter(classes, at, 1.0)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        x, target = ctx.saved_tensors
        counted = target != -100
        n = counted.sum().clamp(min=1)
        grad = wide(grad_loss) * CrossEntropy.difference(x, target) / n
        counted = counted.unsqueeze(min(x.ndim - 1, 1))
        return torch.where(counted, grad, 0.0).to(x.dtype), None


cross_entropy_backward = CrossEntropy.backward


class AvgPool2d(torch.autograd.Function):
    """Mean of 2 x 2 windows; an odd last row or column is in none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        *lead, height, width = ctx.shape
        h, w = grad_y.shape[-2:]
        spread = (grad_y / 4)[..., :, None, :, None].expand(*lead, h, 2, w, 2)
        dense = spread.reshape(*lead, 2 * h, 2 * w)
        return F.pad(dense, (0, width - 2 * w, 0, height - 2 * h))


avg_pool2d_backward = AvgPool2d.backward
