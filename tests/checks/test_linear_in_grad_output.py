"""x̄(a v + b w) = a x̄(v) + b x̄(w)."""

from typing import Any

import pytest
import torch

from gradlab.checks import LinearInGradOutput
from gradlab.subject import build


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y)


class Squares(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y**2)


class Normalises(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y / (grad_y.norm() + 1e-12))


class Clips(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y.clamp(-20, 20))


class Guided(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y.clamp(min=0))


class AddsDecay(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y) + 0.1


class ClipsTheGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y.clamp(-20, 20)


class Bfloat16Inside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any):
        ctx.save_for_backward(x, w)
        return (x.bfloat16() @ w.bfloat16()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = (t.bfloat16() for t in ctx.saved_tensors)
        g = grad_y.bfloat16()
        return (g @ w.t()).to(grad_y.dtype), (x.t() @ g).to(grad_y.dtype)


def found(function: Any, *inputs: Any):
    return list(LinearInGradOutput()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (Squares, "power 2"),
        (Normalises, "does not grow"),
        (Clips, "clipped"),
        (Guided, "one sign"),
        (AddsDecay, "zeros does not give zeros"),
    ],
)
def test_claims(function: Any, says: Any):
    (mismatch,) = found(function, x(3, 4))
    assert mismatch.severity == "error"
    assert says in mismatch.message


def test_is_silent():
    assert not found(Tanh, x(3, 4))
    assert not found(Bfloat16Inside, x(3, 4), x(4, 5))


def test_clipping_on_purpose_is_a_note():
    for function in (
        ClipsTheGradient,
        lambda x: ClipsTheGradient.apply(x.tanh()).square(),
    ):
        (mismatch,) = found(function, x(3, 4))
        assert (mismatch.severity, mismatch.verdict) == ("note", "correct")
