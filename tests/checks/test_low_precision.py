from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.checks import LowPrecision
from gradlab.subject import Mismatch, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(LowPrecision()(build(fn, [x.requires_grad_() for x in inputs])))


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y)


class RoundsToHalf(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        if grad_y.dtype == torch.float64:
            return Tanh.backward(ctx, grad_y)
        y = ctx.saved_tensors[0].bfloat16()
        return (grad_y.bfloat16() * (1 - y * y)).to(grad_y.dtype)


class AlwaysDouble(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        rows = torch.arange(len(y))
        zeros = torch.zeros(y.shape, dtype=torch.float64)
        return zeros.index_add(0, rows, grad_y * (1 - y * y))


class NeverHalf(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        if grad_y.dtype in (torch.float16, torch.bfloat16):
            raise TypeError("no kernel for half")
        return Tanh.backward(ctx, grad_y)


class Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x)
        return torch.nn.functional.softplus(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * torch.sigmoid(ctx.saved_tensors[0])


class SoftplusOverflows(Softplus):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        e = ctx.saved_tensors[0].clamp(max=80).exp()
        return grad_y * e / (1 + e)


class LastMaximum(torch.autograd.Function):
    """At a tie, autograd of the own forward takes another entry: both are right."""

    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x)
        return x.max(-1).values

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (x,) = ctx.saved_tensors
        index = x.shape[-1] - 1 - x.flip(-1).argmax(-1, keepdim=True)
        return torch.zeros_like(x).scatter(-1, index, grad_y[..., None])


def test_lost_digits_are_a_warning():
    (found,) = _found(RoundsToHalf, _x())
    assert found.severity == "warning"
    assert "float32" in found.message


def test_a_crash_in_float32_is_an_error():
    found = _found(AlwaysDouble, _x())
    assert found[0].severity == "error"
    assert "float32" in found[0].message


def test_a_crash_in_half_precision_is_a_note():
    assert [m.severity for m in _found(NeverHalf, _x())] == ["note", "note"]


def test_an_overflow_of_float16_is_claimed():
    found = _found(SoftplusOverflows, _x())
    assert any("float16" in m.message for m in found)
    assert all(m.severity != "note" for m in found)


@pytest.mark.parametrize("function", [Tanh, Softplus, LastMaximum])
def test_it_is_silent_about_a_right_one(function: Any):
    assert not _found(function, _x())


def test_a_tie_made_by_rounding_is_no_error():
    x = torch.tensor([[1.0, 1.0 + 1e-6, 0.5], [2.0, 0.1, 2.0 + 1e-7]]).double()
    assert not _found(LastMaximum, x)
