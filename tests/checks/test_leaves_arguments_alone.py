"""What is passed in comes back unchanged."""

from typing import Any

import torch

from gradlab.checks import LeavesArgumentsAlone
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


class WritesInForward(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        return Tanh.forward(ctx, x.mul_(0.5)) * 2


class WritesToGradOutput(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y.mul_(1 - y * y)


class WritesToOutput(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return y.square_().neg_().add_(1).mul_(grad_y)


class InPlace(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.mark_dirty(x.tanh_())
        ctx.save_for_backward(x)
        return x


class PassesOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y


def found(function: Any, *inputs: Any):
    return list(LeavesArgumentsAlone()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


def test_forward():
    (mismatch,) = found(WritesInForward, x(3, 4))
    assert "forward writes to x" in mismatch.message


def test_grad_output():
    (mismatch,) = found(WritesToGradOutput, x(3, 4))
    assert "grad_output" in mismatch.message


def test_output():
    (mismatch,) = found(WritesToOutput, x(3, 4))
    assert "backward writes to output" in mismatch.message


def test_is_silent():
    for function in (Tanh, InPlace, PassesOn, lambda x: InPlace.apply(x * 1)):
        assert not found(function, x(3, 4))
