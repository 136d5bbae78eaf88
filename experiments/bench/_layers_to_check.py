"""Hand-written layers of real sizes, plain `autograd.Function`s, for timing a checker.

The sizes are those at which `torch.autograd.gradcheck` takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FunctionClass = type[torch.autograd.Function]


class Linear(torch.autograd.Function):
    """y = x Wᵀ + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.mT + bias

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            grad_y @ weight if needed[0] else None,
            grad_y.flatten(0, -2).mT @ x.flatten(0, -2) if needed[1] else None,
            grad_y.flatten(0, -2).sum(0) if needed[2] else None,
        )


class LayerNorm(torch.autograd.Function):
    """y = γ (x − μ) / σ + β over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return LayerNorm.normalised(x)[0] * weight + bias

    @staticmethod
    def normalised(x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        return centred * scale, scale

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        normal, scale = LayerNorm.normalised(x)
        grad_x = None
        if needed[0]:
            g = grad_y * weight
            along = (g * normal).mean(-1, keepdim=True)
            grad_x = (g - g.mean(-1, keepdim=True) - normal * along) * scale
        rows = tuple(range(grad_y.ndim - 1))
        return (
            grad_x,
            (grad_y * normal).sum(rows) if needed[1] else None,
            grad_y.sum(rows) if needed[2] else None,
        )


class Conv2d(torch.autograd.Function):
    """y = W ⋆ x, with a padding of one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grads = torch.ops.aten.convolution_backward(
            grad_y,
            x,
            weight,
            None,
            (1, 1),
            (1, 1),
            (1, 1),
            False,
            (0, 0),
            1,
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
        )
        return grads[0], grads[1]


class Attention(torch.autograd.Function):
    """y = softmax(q kᵀ / √d) v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return Attention.weights(q, k) @ v

    @staticmethod
    def weights(q: Tensor, k: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        needed = ctx.needs_input_grad
        p = Attention.weights(q, k)
        grad_q = grad_k = None
        if needed[0] or needed[1]:
            grad_p = grad_y @ v.mT
            grad_s = p * (grad_p - (grad_p * p).sum(-1, keepdim=True))
            grad_s = grad_s / math.sqrt(q.shape[-1])
            grad_q = grad_s @ k if needed[0] else None
            grad_k = grad_s.mT @ q if needed[1] else None
        return grad_q, grad_k, p.mT @ grad_y if needed[2] else None


class LSTM(torch.autograd.Function):
    """The hidden states of one LSTM layer over x (T, B, I), from zero."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_input: Tensor, w_hidden: Tensor, bias: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, w_input, w_hidden, bias)
        return LSTM.states(x, w_input, w_hidden, bias)[0]

    @staticmethod
    def states(
        x: Tensor, w_input: Tensor, w_hidden: Tensor, bias: Tensor
    ) -> tuple[Tensor, list[Any]]:
        h = x.new_zeros(x.shape[1], w_hidden.shape[1])
        c, outputs, steps = h, [], []
        for at in x @ w_input.mT + bias:
            i, f, g, o = (at + h @ w_hidden.mT).chunk(4, -1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            before = h, c
            c = f * c + i * g
            h = o * c.tanh()
            outputs.append(h)
            steps.append((i, f, g, o, c.tanh(), *before))
        return torch.stack(outputs), steps

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> Any:
        x, w_input, w_hidden, bias = ctx.saved_tensors
        steps = LSTM.states(x, w_input, w_hidden, bias)[1]
        grad_next = torch.zeros_like(grad_h[0])
        grad_c = torch.zeros_like(grad_next)
        grads = []
        for grad, (i, f, g, o, tanh_c, _, c) in zip(
            reversed(grad_h), reversed(steps), strict=True
        ):
            total = grad + grad_next
            grad_c = grad_c + total * o * (1 - tanh_c * tanh_c)
            parts = (
                grad_c * g * i * (1 - i),
                grad_c * c * f * (1 - f),
                grad_c * i * (1 - g * g),
                total * tanh_c * o * (1 - o),
            )
            grads.append(torch.cat(parts, -1))
            grad_next = grads[-1] @ w_hidden
            grad_c = grad_c * f
        gates = torch.stack(grads[::-1])
        hidden = torch.stack([step[5] for step in steps])
        flat = gates.flatten(0, 1)
        needed = ctx.needs_input_grad
        return (
            gates @ w_input if needed[0] else None,
            flat.mT @ x.flatten(0, 1) if needed[1] else None,
            flat.mT @ hidden.flatten(0, 1) if needed[2] else None,
            flat.sum(0) if needed[3] else None,
        )


class CrossEntropy(torch.autograd.Function):
    """The mean of logsumexp(x) − x[target] over the rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(x, target)
        picked = x.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return (x.logsumexp(-1) - picked).mean()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, target = ctx.saved_tensors
        hot = torch.nn.functional.one_hot(target, x.shape[-1])
        return grad_y * (x.softmax(-1) - hot) / max(target.numel(), 1), None


@dataclass(frozen=True)
class LayerToCheck:
    """A layer, its size in words and its inputs."""

    name: str
    function: FunctionClass
    inputs: Callable[[], tuple[Tensor, ...]]


def _leaf(*shape: int, scale: float = 1.0) -> Tensor:
    draw = torch.randn(shape, dtype=torch.float64) * scale
    return draw.requires_grad_()


LAYERS = (
    LayerToCheck(
        "Linear (32,64)→128",
        Linear,
        lambda: (_leaf(32, 64), _leaf(128, 64), _leaf(128)),
    ),
    LayerToCheck(
        "LayerNorm 32×128", LayerNorm, lambda: (_leaf(32, 128), _leaf(128), _leaf(128))
    ),
    LayerToCheck(
        "Conv2d 4×8×12×12", Conv2d, lambda: (_leaf(4, 8, 12, 12), _leaf(8, 8, 3, 3))
    ),
    LayerToCheck(
        "attention 2×4×32×16",
        Attention,
        lambda: (_leaf(2, 4, 32, 16), _leaf(2, 4, 32, 16), _leaf(2, 4, 32, 16)),
    ),
    LayerToCheck(
        "LSTM T8 B4 16→32",
        LSTM,
        lambda: (
            _leaf(8, 4, 16),
            _leaf(128, 16, scale=0.3),
            _leaf(128, 32, scale=0.3),
            _leaf(128),
        ),
    ),
    LayerToCheck(
        "cross-entropy 32×1000",
        CrossEntropy,
        lambda: (_leaf(32, 1000), torch.randint(1000, (32,))),
    ),
)
"""The sizes of the gates; slow gradcheck runs on all of them."""

LARGE = LayerToCheck(
    "Conv2d 8×16×16×16", Conv2d, lambda: (_leaf(8, 16, 16, 16), _leaf(16, 16, 3, 3))
)
"""Slow gradcheck would need 26 GB of Jacobians for this one."""

SMALL = LayerToCheck(
    "LayerNorm 3×4", LayerNorm, lambda: (_leaf(3, 4), _leaf(4), _leaf(4))
)
"""Where the fixed cost shows."""
