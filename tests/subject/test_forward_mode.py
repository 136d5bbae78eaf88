"""Forward mode is the truth where a forward switches reverse mode off."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab import gradcheck


class Sine(torch.autograd.Function):
    """Switches grad mode off by hand, which nothing can ignore from outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        was = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        y = x.sin() * w
        torch._C._set_grad_enabled(was)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return grad_y * x.cos() * w, grad_y * x.sin()


class Wrong(Sine):
    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x, _) = ctx.saved_tensors
        return grad_y * x.cos(), grad_y * x.sin()


@pytest.mark.parametrize(("fn", "verdict"), [(Sine, "correct"), (Wrong, "wrong")])
def test_verdict(fn: Any, verdict: str) -> None:
    inputs = tuple(torch.randn(3, 4, requires_grad=True) for _ in range(2))
    report = gradcheck(fn, inputs)
    assert report.verdict == verdict, str(report)
    assert report.reference == "forward mode through its own forward"


def test_large_inputs_fall_back_to_differences() -> None:
    inputs = tuple(torch.randn(30, 40, requires_grad=True) for _ in range(2))
    assert gradcheck(Sine, inputs, level="value").reference == "finite differences"
    assert gradcheck(Wrong, inputs, level="value").verdict == "wrong"
