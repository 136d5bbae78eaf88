"""No grad_output counts as zeros."""

from typing import Any

import pytest
import torch

from gradlab.checks import UndefinedGradients
from gradlab.subject import build


class SinCos(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx: Any, grad_sin: Any, grad_cos: Any):
        (x,) = ctx.saved_tensors
        return grad_sin * x.cos() - grad_cos * x.sin()


class Crashes(SinCos):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.set_materialize_grads(False)
        return SinCos.forward(ctx, x)


class GivesUp(Crashes):
    @staticmethod
    def backward(ctx: Any, grad_sin: Any, grad_cos: Any):
        if grad_sin is None or grad_cos is None:
            return None
        return SinCos.backward(ctx, grad_sin, grad_cos)


def found(function: Any, *inputs: Any):
    return list(UndefinedGradients()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize(
    ("function", "says"), [(Crashes, "raises"), (GivesUp, "is wrong when only")]
)
def test_claims(function: Any, says: Any):
    mismatches = found(function, x(3, 4))
    assert mismatches
    assert all(says in m.message and m.severity == "error" for m in mismatches)


def test_is_silent():
    assert not found(SinCos, x(3, 4))
    assert not found(torch.tanh, x(3, 4))
