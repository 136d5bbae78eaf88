"""A grad_output of any strides gives one gradient."""

from typing import Any

import pytest
import torch

from gradlab.checks import AnyGradOutputLayout
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


class Views(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y.view(-1).view(y.shape) * (1 - y * y)


class ReadsMemory(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        strides = torch.empty(grad_y.shape, device="meta").stride()
        return Tanh.backward(ctx, grad_y.as_strided(grad_y.shape, strides))


class ForgetsOffset(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        shape, strides = grad_y.shape, grad_y.stride()
        return Tanh.backward(ctx, grad_y.as_strided(shape, strides, 0))


class Writes(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y.mul_(1 - y * y)


def found(function: Any, *inputs: Any):
    return list(AnyGradOutputLayout()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(shape, requires_grad=True)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (Views, "view size is not compatible"),
        (ReadsMemory, "transposed in memory"),
        (ForgetsOffset, "larger buffer"),
        (Writes, "stride 0"),
    ],
)
def test_claims(function: Any, says: Any):
    mismatches = found(function, x(3, 4))
    assert mismatches
    assert all(m.severity == "error" for m in mismatches)
    assert any(says in m.message for m in mismatches)


def test_channels_last():
    assert any("channels last" in m.where for m in found(ReadsMemory, x(2, 3, 4, 4)))


def test_is_silent():
    for shape in ((3, 4), (), (1,), (0, 3), (2, 3, 4, 4)):
        assert not found(Tanh, x(*shape))
