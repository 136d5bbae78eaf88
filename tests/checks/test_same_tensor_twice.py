"""One tensor as two arguments gets the sum of both gradients."""

from typing import Any

import torch

from gradlab.checks import SameTensorTwice
from gradlab.subject import build


class Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = ctx.saved_tensors
        needs_x, needs_w = ctx.needs_input_grad
        return grad_y * w if needs_x else None, grad_y * x if needs_w else None


class ByIdentity(Multiply):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = ctx.saved_tensors
        if x.data_ptr() == w.data_ptr():
            return grad_y * w, None
        return grad_y * w, grad_y * x


def found(function: Any, *inputs: Any):
    return list(SameTensorTwice()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


def test_claims():
    (mismatch,) = found(ByIdentity, x(3, 4), x(3, 4))
    assert mismatch.severity == "error"
    assert "x and w are one tensor" in mismatch.message


def test_is_silent():
    assert not found(Multiply, x(3, 4), x(3, 4))
    assert not found(Multiply, x(3, 4), x(4))
    assert not found(torch.cdist, x(3, 4), x(3, 4))
