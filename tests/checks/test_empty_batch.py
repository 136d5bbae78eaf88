from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.checks import EmptyBatch
from gradlab.subject import Mismatch, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(EmptyBatch()(build(fn, [x.requires_grad_() for x in inputs])))


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any):
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, weight = ctx.saved_tensors
        weight, x = weight.to(grad_y.dtype), x.to(grad_y.dtype)
        return grad_y @ weight, grad_y.t() @ x, grad_y.sum(0)


class MeansTheBias(Linear):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        grad_x, grad_weight, _ = Linear.backward(ctx, grad_y)
        return grad_x, grad_weight, grad_y.mean(0) * len(grad_y)


class StacksRows(Linear):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        _, grad_weight, grad_bias = Linear.backward(ctx, grad_y)
        rows = torch.stack([row @ ctx.saved_tensors[1] for row in grad_y])
        return rows, grad_weight, grad_bias


class RefusesNothing(Linear):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any):
        if not len(x):
            raise ValueError("x must have rows")
        return Linear.forward(ctx, x, weight, bias)

    backward = StacksRows.backward


def _inputs(rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    return _x(rows, 4), _x(5, 4) * 0.7, _x(5)


def test_nan_for_a_parameter_is_an_error():
    (found,) = _found(MeansTheBias, *_inputs())
    assert found.severity == "error"
    assert found.input == "bias"


def test_a_crash_of_the_backward_alone_is_a_warning():
    (found,) = _found(StacksRows, *_inputs())
    assert found.severity == "warning"


def test_a_forward_that_refuses_is_left_alone():
    assert not [m for m in _found(RefusesNothing, *_inputs()) if "x" in m.where]


@pytest.mark.parametrize("rows", [3, 5])
def test_it_is_silent_about_a_right_one(rows: Any):
    assert not _found(Linear, *_inputs(rows))


def test_it_is_silent_about_a_mean_of_nothing():
    class MeanSquare(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, target: Any):
            ctx.save_for_backward(x - target)
            return (x - target).square().mean()

        @staticmethod
        def backward(ctx: Any, grad_y: Any):
            (d,) = ctx.saved_tensors
            grad_x = grad_y * 2 * d / max(d.numel(), 1)
            return grad_x, -grad_x

    assert not _found(MeanSquare, _x(3), _x(3) * 0.5)
