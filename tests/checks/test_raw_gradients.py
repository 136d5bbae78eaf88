"""What a backward returns needs no repair."""

from typing import Any

import torch

from gradlab.checks import RawGradients
from gradlab.subject import build


class Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, bias: Any):
        ctx.shape = bias.shape
        return x + bias

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y, grad_y.sum_to_size(ctx.shape)


class DoesNotSum(Add):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y, grad_y


class Widens(Add):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        grad_x, grad_bias = Add.backward(ctx, grad_y)
        return grad_x.double(), grad_bias


class Narrows(Add):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        grad_x, grad_bias = Add.backward(ctx, grad_y)
        return grad_x.half(), grad_bias


class OfIndices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, index: Any):
        return x * index

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * 2, grad_y


def found(function: Any, *inputs: Any):
    return list(RawGradients()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


def test_shape():
    (mismatch,) = found(DoesNotSum, x(3, 4), x(4))
    assert mismatch.severity == "warning"
    assert "[3, 4], the argument has [4]" in mismatch.message


def test_dtype():
    assert {m.severity for m in found(Widens, x(3, 4), x(4))} == {"note"}
    assert "warning" in {m.severity for m in found(Narrows, x(3, 4), x(4))}


def test_integers():
    (mismatch,) = found(OfIndices, x(3), torch.tensor(2))
    assert (mismatch.severity, "int64" in mismatch.message) == ("warning", True)


def test_is_silent():
    assert not found(Add, x(3, 4), x(4))
    assert not found(torch.tanh, x(3, 4))
