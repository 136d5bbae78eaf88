"""One gradient, however and however often it is asked for."""

from typing import Any

import pytest
import torch

from gradlab.checks import Repeatable
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


class ChangesSaved(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        grad_x = grad_y * (1 - y * y)
        y.data.mul_(0.5)
        return grad_x


class KeptOnClass(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        KeptOnClass.y = x.tanh()
        return KeptOnClass.y.clone()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * (1 - KeptOnClass.y**2)


class InnerGraph(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = ctx.x.tanh()
        return ctx.y.detach()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return torch.autograd.grad(ctx.y, ctx.x, grad_y)[0]


class AlsoWritesGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.x = x
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        if ctx.x.is_leaf:
            ctx.x.grad = 2 * grad_y
        return 2 * grad_y


class Workspace(Tanh):
    memory = torch.empty(3, 4, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Workspace.memory.copy_(Tanh.backward(ctx, grad_y))


class Once(torch.autograd.Function):
    clear_saved_tensors_on_access = True

    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return 2 * grad_y * ctx.saved_tensors[0]


def found(function: Any, *inputs: Any):
    return list(Repeatable()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (ChangesSaved, "second backward"),
        (KeptOnClass, "another forward"),
        (InnerGraph, "although retain_graph=True"),
        (AlsoWritesGrad, "into .grad"),
        (Workspace, "used again"),
    ],
)
def test_claims(function: Any, says: Any):
    mismatches = found(function, x(3, 4))
    assert any(says in m.message for m in mismatches)
    assert all(m.severity == "error" for m in mismatches)


def test_hint_for_an_inner_graph():
    assert "a graph of its own" in found(InnerGraph, x(3, 4))[0].hint


def test_clearing_on_purpose_is_a_note():
    (mismatch,) = found(Once, x(3, 4))
    assert (mismatch.severity, mismatch.verdict) == ("note", "correct")


def test_is_silent():
    assert not found(Tanh, x(3, 4))
    assert not found(lambda x: Tanh.apply(x.tanh()).sum(), x(3, 4))
