"""What is saved comes back as a copy, elsewhere in memory."""

from typing import Any

import torch

from gradlab.checks import SavedTensorsHooks
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


class RemembersStrides(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x.t())
        ctx.strides = x.stride()
        return x * x

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (xt,) = ctx.saved_tensors
        return 2 * grad_y * xt.as_strided(grad_y.shape, ctx.strides)


class LooksAtTheAddress(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = Tanh.forward(ctx, x)
        ctx.address = y.data_ptr()
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        assert ctx.saved_tensors[0].data_ptr() == ctx.address
        return Tanh.backward(ctx, grad_y)


class SavesNothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.shape = x.shape
        return x.sum()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y.expand(ctx.shape)


class InPlace(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.mark_dirty(x.tanh_())
        ctx.save_for_backward(x)
        return x


class UsesTorchFunc(torch.autograd.Function):
    """torch refuses torch.func under these hooks: not the Function's fault."""

    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(torch.func.grad(lambda z: z.tanh().sum())(x.detach()))
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * ctx.saved_tensors[0]


def found(function: Any, *shape: Any):
    x = torch.randn(*shape, requires_grad=True)
    return list(SavedTensorsHooks()(build(function, x)))


def test_strides():
    (mismatch,) = found(RemembersStrides, 3, 4)
    assert mismatch.severity == "error"
    assert "gradient of x is another" in mismatch.message


def test_address():
    (mismatch,) = found(LooksAtTheAddress, 3, 4)
    assert mismatch.severity == "warning"
    assert "AssertionError" in mismatch.message


def test_is_silent():
    for function in (Tanh, SavesNothing, InPlace, UsesTorchFunc, torch.tanh):
        assert not found(function, 3, 4)
    assert not found(Tanh, 0, 4)
