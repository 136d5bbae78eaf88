"""Every gradient that is asked for, and no other work."""

from typing import Any

import pytest
import torch

from gradlab.checks import NeedsInputGrad
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


class WrongIndex(Multiply):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = ctx.saved_tensors
        needs_x, _ = ctx.needs_input_grad
        return grad_y * w if needs_x else None, grad_y * x if needs_x else None


class Crashes(Multiply):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        grad_x, grad_w = Multiply.backward(ctx, grad_y)
        return grad_x, grad_w.contiguous()


class Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = ctx.saved_tensors
        needs_x, needs_w = ctx.needs_input_grad
        return grad_y @ w.t() if needs_x else None, x.t() @ grad_y if needs_w else None


class WastesMatmul(Matmul):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = ctx.saved_tensors
        return grad_y @ w.t(), x.t() @ grad_y


class NeverAsks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = ctx.saved_tensors
        return grad_y @ w.t(), x.t() @ grad_y


class WastesMultiply(Multiply):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, w = ctx.saved_tensors
        return grad_y * w, grad_y * x


class AddsBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, bias: Any):
        ctx.save_for_backward(x)
        return (x + bias) @ x.new_ones(4, 2)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        grad_x = grad_y @ grad_y.new_ones(2, 4)  # a step to the gradient of bias
        return grad_x, grad_x.sum(0) if ctx.needs_input_grad[1] else None


def found(function: Any, *inputs: Any):
    return list(NeedsInputGrad()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize("function", [WrongIndex, Crashes])
def test_claims(function: Any):
    mismatches = found(function, x(3, 4), x(3, 4))
    assert any(m.severity == "error" for m in mismatches)


def test_wasted_products_are_a_warning():
    (mismatch,) = found(WastesMatmul, x(3, 4), x(4, 5))
    assert mismatch.severity == "warning"
    assert "argument 0 and 1" in mismatch.message


def test_who_never_asks_wastes_by_choice():
    (mismatch,) = found(NeverAsks, x(3, 4), x(4, 5))
    assert (mismatch.severity, mismatch.verdict) == ("note", "correct")


def test_wasted_elementwise_work_is_a_note():
    (mismatch,) = found(WastesMultiply, x(3, 4), x(3, 4))
    assert (mismatch.severity, mismatch.verdict) == ("note", "correct")


def test_a_constant_argument_is_waste_too():
    (mismatch,) = found(WastesMatmul, x(3, 4), torch.randn(4, 5))
    assert "argument 1" in mismatch.message


def test_is_silent():
    assert not found(Multiply, x(3, 4), x(3, 4))
    assert not found(Matmul, x(3, 4), x(4, 5))
    assert not found(AddsBias, x(3, 4), x(4))
