"""Inputs of any strides give one output and one gradient."""

from typing import Any

import torch
from torch.nn import functional as F

from gradlab.checks import AnyInputLayout
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


class SavesMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (x,) = ctx.saved_tensors
        strides = torch.empty(x.shape, device="meta").stride()
        return 2 * grad_y * x.as_strided(x.shape, strides)


class ViewsInBackward(SavesMemory):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (x,) = ctx.saved_tensors
        return 2 * grad_y * x.view(-1).view(x.shape)


class Refuses(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        if not x.is_contiguous():
            raise ValueError("x must be contiguous")
        return Tanh.forward(ctx, x)


class Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Any, index: Any):
        ctx.save_for_backward(index)
        ctx.shape = weight.shape
        return weight[index]

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (index,) = ctx.saved_tensors
        rows = grad_y.reshape(-1, ctx.shape[1])
        return grad_y.new_zeros(ctx.shape).index_add(0, index.view(-1), rows), None


def found(function: Any, *inputs: Any):
    return list(AnyInputLayout()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(shape, requires_grad=True)


def test_memory_order():
    (mismatch,) = found(SavesMemory, x(3, 4))
    assert "gradient of x is another" in mismatch.message
    assert "transposed" in mismatch.where
    assert "expanded" in mismatch.where


def test_crash():
    (mismatch,) = found(ViewsInBackward, x(3, 4))
    assert (mismatch.severity, "raises" in mismatch.message) == ("error", True)


def test_indices():
    index = torch.tensor([[5, 2, 0], [1, 6, 3]])
    (mismatch,) = found(Embedding, x(7, 4), index)
    assert "index is transposed" in mismatch.message


def test_a_refusal_is_a_note():
    (mismatch,) = found(Refuses, x(3, 4))
    assert (mismatch.severity, mismatch.verdict) == ("note", "correct")


def test_is_silent():
    for shape in ((3, 4), (), (0, 3), (2, 3, 4, 4)):
        assert not found(Tanh, x(*shape))


def test_ties_and_random_numbers_are_no_layout():
    assert not found(lambda x: x.max(0).values, x(4, 3))
    assert not found(lambda x: F.dropout(x, 0.5), x(4, 3))


def test_a_fault_of_torch_is_not_laid_at_the_door_of_a_function():
    def batch_norm(x: Any, weight: Any, bias: Any):
        return Tanh.apply(F.batch_norm(x, None, None, weight, bias, training=True))

    assert not found(batch_norm, x(6, 5), x(5), x(5))
