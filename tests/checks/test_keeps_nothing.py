"""What belongs to a run dies with its outputs."""

import gc
from typing import Any

import pytest
import torch

from gradlab.checks import KeepsNothing
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


class OutputOnCtx(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.y = x.tanh()
        return ctx.y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * (1 - ctx.y**2)


class ListOnCtx(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.saved = [x]
        return x**2

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return 2 * grad_y * ctx.saved[0]


class MaskOnCtx(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.mask = x > 0
        return x.relu()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * ctx.mask


class SlopeOnCtx(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.slope = x.cos()
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * ctx.slope


class Collects(Tanh):
    kept: list[torch.Tensor] = []

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        Collects.kept.append(grad_y)
        return Tanh.backward(ctx, grad_y)


def found(function: Any, *inputs: Any):
    return list(KeepsNothing()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


def test_a_cycle():
    leak, attribute = found(OutputOnCtx, x(3, 4))
    assert (leak.severity, attribute.severity) == ("warning", "warning")
    assert "reference cycle" in leak.message
    assert "ctx.y" in attribute.message
    assert gc.isenabled()


def test_a_list_of_tensors():
    (mismatch,) = found(ListOnCtx, x(3, 4))
    assert (mismatch.severity, "ctx.saved" in mismatch.message) == ("warning", True)


@pytest.mark.parametrize("function", [MaskOnCtx, SlopeOnCtx])
def test_what_the_forward_made_for_itself_is_a_note(function: Any):
    (mismatch,) = found(function, x(3, 4))
    assert (mismatch.severity, mismatch.verdict) == ("note", "correct")


def test_a_cache_that_grows():
    (mismatch,) = found(Collects, x(3, 4))
    assert "Collects.kept grows" in mismatch.message


def test_is_silent():
    assert not found(Tanh, x(3, 4))
    assert not found(torch.nn.Sequential(torch.nn.Linear(4, 4)), x(3, 4))
