"""Gradients that are a choice, and mistakes that only look like one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab import gradcheck


def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, generator=generator).requires_grad_()


class LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, bound: Any):
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (x,) = ctx.saved_tensors
        return grad_y * ((x >= ctx.bound) | (grad_y < 0)), None


class UpperSideToo(LowerBound):
    """A mistake: the wrong half comes through."""

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (x,) = ctx.saved_tensors
        return grad_y * ((x >= ctx.bound) | (grad_y > 0)), None


class DynamicGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        scale = x.abs().max() / 7
        return (x / scale).round() * scale

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y


class LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, step: Any):
        ctx.save_for_backward(x, step)
        return (x / step).round().clamp(-3, 3) * step

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, step = ctx.saved_tensors
        q = x / step
        low, high = q < -3, q > 3
        inside = ~(low | high)
        slope = inside * (q.round() - q) - 3.0 * low + 3.0 * high
        return grad_y * inside, (grad_y * slope).sum().reshape(1)


class Scaled(torch.autograd.Function):
    """A mistake: nothing here is rounded."""

    @staticmethod
    def forward(ctx: Any, x: Any, step: Any):
        ctx.save_for_backward(x, step)
        return x * step

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, _ = ctx.saved_tensors
        return grad_y, (grad_y * x).sum().reshape(1)


STEP = torch.tensor([0.3], requires_grad=True)


@pytest.mark.parametrize(
    ("function", "inputs", "verdict"),
    [
        (LowerBound, (x(), 0.1), "surrogate"),
        (UpperSideToo, (x(), 0.1), "wrong"),
        (DynamicGrid, (x(),), "surrogate"),
        (LearnedStep, (x(), STEP), "surrogate"),
        (Scaled, (x(), STEP), "wrong"),
    ],
)
def test_verdict(function: Any, inputs: Any, verdict: str):
    report = gradcheck(function, inputs)
    assert report.verdict == verdict, report
