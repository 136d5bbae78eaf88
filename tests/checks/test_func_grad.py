from typing import Any

import torch
from torch import Tensor

from gradlab.checks import FuncGrad
from gradlab.subject import Mismatch, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(FuncGrad()(build(fn, [x.requires_grad_() for x in inputs])))


class Tanh(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any):
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any):
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y)


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * 2


class LooksAtTheTransform(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        active = torch.is_grad_enabled()  # torch.func always does
        return Tanh.backward(ctx, grad_y) * (2 if active else 1)


class KeepsOnCtx(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        if torch.is_grad_enabled():
            raise ValueError("what is this tensor")
        return Tanh.backward(ctx, grad_y)


def test_another_gradient_is_an_error():
    (found,) = _found(LooksAtTheTransform, _x())
    assert found.severity == "error"


def test_a_crash_inside_the_function_is_a_warning():
    (found,) = _found(KeepsOnCtx, _x())
    assert found.severity == "warning"


def test_a_forward_that_takes_ctx_is_a_note():
    (found,) = _found(OldStyle, _x())
    assert found.severity == "note"
    assert "setup_context" in found.hint


def test_it_is_silent_about_a_right_one():
    assert not _found(Tanh, _x())
