"""Wherever the forward runs and reads its input."""

from typing import Any

import torch

from gradlab.checks import HoldsAtOtherPoints
from gradlab.subject import build


def found(function: Any, *inputs: Any):
    return list(HoldsAtOtherPoints()(build(function, inputs)))


class Modulus(torch.autograd.Function):
    """Real and imaginary parts in the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Any):
        y = (x[..., 0] ** 2 + x[..., 1] ** 2).sqrt()
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, y = ctx.saved_tensors
        return (x * (grad_y / y).unsqueeze(-1)).masked_fill((y == 0).unsqueeze(-1), 0)


class StopsAtFour(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        grad_x = 2 * grad_y * ctx.saved_tensors[0]
        return torch.cat([grad_x[:, :4], 0 * grad_x[:, 4:]], 1)


def test_a_dimension_of_real_and_imaginary_parts_has_one_size():
    assert not found(Modulus, torch.randn(3, 4, 2, requires_grad=True))


def test_what_a_longer_row_adds_is_read():
    (mismatch,) = found(StopsAtFour, torch.randn(3, 4, requires_grad=True))
    assert "size 67 instead of 4" in mismatch.where
