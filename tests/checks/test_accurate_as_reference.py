"""Errors in float32 and bfloat16, as multiples of the reference's."""

from typing import Any

import pytest
import torch

from gradlab.checks import AccurateAsReference
from gradlab.subject import NotChecked, build


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        slope = torch.ops.aten.tanh_backward(torch.ones_like(y), y)
        return grad_y * slope


class RoundsToHalf(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        slope = 1 - y * y
        half = slope.half().float() if y.dtype == torch.float32 else slope
        return grad_y * half


class OnlyDouble(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        if y.dtype == torch.bfloat16:
            raise RuntimeError("not for bfloat16")
        return Tanh.backward(ctx, grad_y)


def found(
    function: Any, reference: Any = torch.tanh, shape: Any = (3, 4), **options: Any
):
    x = torch.randn(*shape, requires_grad=True)
    subject = build(function, x, reference=reference)
    return list(AccurateAsReference(**options)(subject))


def test_lost_digits():
    mismatches = found(RoundsToHalf)
    assert mismatches
    assert all("float32" in m.message for m in mismatches)
    assert not found(RoundsToHalf, factor=1e6)


def test_a_crash():
    (mismatch,) = found(OnlyDouble)
    assert "not for bfloat16" in mismatch.message


def test_is_silent():
    assert not found(torch.tanh)
    assert not found(lambda x: torch.tanh(x) * 1)
    assert not found(torch.tanh, shape=(0, 4))


def test_needs_a_reference():
    with pytest.raises(NotChecked, match="reference"):
        found(Tanh, None)
