"""The forward runs again in the backward, and must do the same."""

from typing import Any

import torch

from gradlab.checks import ActivationCheckpointing
from gradlab.subject import build


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = x.tanh()
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        _, y = ctx.saved_tensors
        return grad_y * (1 - y * y)


class ReadsTwice(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        _, y = ctx.saved_tensors
        return grad_y * (1 - y * ctx.saved_tensors[1])


class KnowsWhereItRuns(Tanh):
    """Another slope where the forward runs inside of a backward."""

    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.factor = 2.0 if torch._C._current_graph_task_id() != -1 else 1.0
        return Tanh.forward(ctx, x)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y) * ctx.factor


class RecomputesInside(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, _ = ctx.saved_tensors
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            return torch.autograd.grad(z.tanh(), z, grad_y)[0]


class OnCtx(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.y = x.tanh()
        return ctx.y * 1

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * (1 - ctx.y * ctx.y)


class InPlace(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.mark_dirty(x.tanh_())
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y)


class Once(Tanh):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y)


class Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        mask = torch.bernoulli(torch.full_like(x, 0.5))
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * ctx.saved_tensors[0]


class TwoOutputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        value, index = x.max(0)
        ctx.save_for_backward(index)
        ctx.mark_non_differentiable(index)
        ctx.shape = x.shape
        return value, index, x * 2

    @staticmethod
    def backward(ctx: Any, grad_value: Any, _, grad_twice: Any):
        grad = torch.zeros(ctx.shape, dtype=grad_value.dtype)
        return grad.scatter_(0, ctx.saved_tensors[0][None], grad_value[None]) + (
            2 * grad_twice
        )


def found(function: Any, *shape: Any, **options: Any):
    check = ActivationCheckpointing(**{"ways": (False, True), **options})
    x = torch.randn(*shape, requires_grad=True)
    return list(check(build(function, x)))


def test_a_second_forward_that_does_something_else():
    mismatches = found(KnowsWhereItRuns, 3, 4)
    assert [m.severity for m in mismatches] == ["error"]
    assert "use_reentrant=True" in mismatches[0].message


def test_saved_tensors_read_twice():
    (mismatch,) = found(ReadsTwice, 3, 4)
    assert mismatch.severity == "note"
    assert mismatch.verdict == "correct"
    assert "use_reentrant=False" in mismatch.message
    (mismatch,) = found(ReadsTwice, 3, 4, refused="error")
    assert mismatch.severity == "error"
    assert not found(ReadsTwice, 3, 4, ways=(True,))


def test_is_silent():
    silent = (Tanh, RecomputesInside, OnCtx, InPlace, Once, Dropout, TwoOutputs)
    for function in (*silent, torch.tanh):
        assert not found(function, 3, 4), function
        apply = getattr(function, "apply", function)
        assert not found(lambda x, f=apply: f(x * 1), 3, 4), function
    assert not found(Tanh, 0, 4)
