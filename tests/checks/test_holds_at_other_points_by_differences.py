"""Other points where the forward leaves torch: finite differences alone must tell."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab import gradcheck


class Sine(torch.autograd.Function):
    """In NumPy, so that autograd cannot follow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(np.asarray(np.sin(x.detach().numpy())))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grad_y * x.cos()


class WithoutTail(Sine):
    """Blocks of four rows: the rest gets nothing."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grad_x = Sine.backward(ctx, grad_y)
        whole = len(grad_x) // 4 * 4
        return torch.cat([grad_x[:whole], 0 * grad_x[whole:]])


class OnlySmall(Sine):
    """Right up to 4."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() < 4, Sine.backward(ctx, grad_y), 0.0)


@pytest.mark.parametrize(
    ("function", "where"), [(WithoutTail, "size 67"), (OnlySmall, "5 times")]
)
def test_found(function: Any, where: str) -> None:
    report = gradcheck(function, torch.randn(8, 3, requires_grad=True))
    assert report.verdict == "wrong"
    (finding,) = [f for f in report.findings if f.code == "holds_at_other_points"]
    assert where in finding.where


def test_silent() -> None:
    report = gradcheck(Sine, torch.randn(8, 3, requires_grad=True))
    assert report.ok, str(report)
    assert "holds_at_other_points" not in report.not_checked
