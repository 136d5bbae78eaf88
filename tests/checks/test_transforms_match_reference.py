"""Second derivatives and stacks of gradients, held against the reference's."""

from typing import Any

import torch

from gradlab import Function
from gradlab.checks import TransformsMatchReference
from gradlab.subject import build


class Tanh(Function):
    @staticmethod
    def forward(x: Any):
        return x.tanh()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any):
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y)

    @staticmethod
    def jvp(ctx: Any, dx: Any):
        (y,) = ctx.saved_tensors
        return dx * (1 - y * y)


class CutOff(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y).detach()


class WrongTangent(Tanh):
    @staticmethod
    def jvp(ctx: Any, dx: Any):
        (y,) = ctx.saved_tensors
        return 2 * dx * (1 - y * y)


class WrongWhereTransformed(Tanh):
    @staticmethod
    def fused_backward(ctx: Any, grad_y: Any):
        return Tanh._written["backward"](ctx, grad_y)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y)


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y)


class OldStyleSlope(OldStyle):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = x.tanh()
        ctx.save_for_backward(1 - y * y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * ctx.saved_tensors[0]


class Once(OldStyle):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Any):
        return OldStyle.backward(ctx, grad_y)


class StraightThrough(OldStyle):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y


class Relu(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any):
        return x.clamp(min=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * (ctx.saved_tensors[0] > 0)


def found(function: Any, reference: Any = torch.tanh, shape: Any = (3, 4)):
    x = torch.randn(*shape, requires_grad=True)
    return list(TransformsMatchReference()(build(function, x, reference=reference)))


def messages(function: Any):
    return " ".join(m.message for m in found(function))


def test_a_derivative_that_is_cut_off():
    assert "by double backward" in messages(CutOff)
    assert "by torch.func.hessian" in messages(CutOff)
    assert "by double backward" in messages(OldStyleSlope)


def test_a_tangent():
    (mismatch,) = found(WrongTangent)
    assert "torch.func.hessian" in mismatch.message
    assert mismatch.severity == "warning"


def test_a_rule_that_only_runs_under_transforms():
    assert "torch.func.jacrev" in messages(WrongWhereTransformed)


def test_is_silent():
    for function in (Tanh, OldStyle, Once, StraightThrough):
        assert not found(function), function
    assert not found(Relu, torch.relu)
    assert not found(Tanh, None)
    assert not found(torch.tanh)
    assert not found(Tanh, shape=(0, 4))


def test_a_function_is_no_witness():
    assert not found(Tanh, OldStyleSlope.apply)
