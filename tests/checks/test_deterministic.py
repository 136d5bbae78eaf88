"""One run, one result, whatever else is drawn."""

from typing import Any

import torch
from torch.nn import functional as F

from gradlab.checks import Deterministic
from gradlab.subject import build


class Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        keep = torch.rand_like(x) < 0.5
        ctx.save_for_backward(keep)
        return x * keep

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (keep,) = ctx.saved_tensors
        return grad_y * keep


class RedrawsMask(Dropout):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * (torch.rand_like(grad_y) < 0.5)


class OwnGenerator(Dropout):
    generator = torch.Generator()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        draw = torch.rand(grad_y.shape, generator=OwnGenerator.generator)
        return grad_y * (draw < 0.5)


class Rounds(torch.autograd.Function):
    runs = 0

    @staticmethod
    def forward(ctx: Any, x: Any):
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        Rounds.runs += 1
        return 2 * grad_y * (1 + 1e-15 * (Rounds.runs % 2))


def found(function: Any, *inputs: Any):
    return list(Deterministic()(build(function, inputs)))


def x(*shape: Any):
    return torch.randn(*shape, requires_grad=True)


def test_random_numbers_in_the_backward():
    (mismatch,) = found(RedrawsMask, x(3, 4))
    assert mismatch.severity == "error"
    assert "draws its own" in mismatch.message


def test_runs_that_differ():
    (mismatch,) = found(OwnGenerator, x(3, 4))
    assert mismatch.severity == "error"
    assert "identical runs" in mismatch.message


def test_rounding_is_a_note():
    (mismatch,) = found(Rounds, x(3, 4))
    assert (mismatch.severity, mismatch.verdict) == ("note", "correct")


def test_is_silent():
    assert not found(Dropout, x(3, 4))
    assert not found(lambda x: F.dropout(x, 0.5), x(3, 4))
