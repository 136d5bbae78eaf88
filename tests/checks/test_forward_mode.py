from typing import Any

import torch
from torch import Tensor

from gradlab.checks import ForwardMode
from gradlab.subject import Mismatch, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(ForwardMode()(build(fn, [x.requires_grad_() for x in inputs])))


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


class RightTangent(Tanh):
    @staticmethod
    def jvp(ctx: Any, tangent: Any) -> Any:
        return Tanh.backward(ctx, tangent)


class HalfTangent(Tanh):
    @staticmethod
    def jvp(ctx: Any, tangent: Any):
        return tangent * (1 - ctx.saved_tensors[0])


class RaisingTangent(Tanh):
    @staticmethod
    def jvp(ctx: Any, tangent: Any):
        raise ValueError("not today")


class WrongBackward(RightTangent):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y


def test_a_wrong_tangent_is_an_error():
    (found,) = _found(HalfTangent, _x())
    assert found.severity == "error"
    assert found.input == "x"


def test_a_tangent_that_raises_is_a_note():
    (found,) = _found(RaisingTangent, _x())
    assert found.severity == "note"
    assert "not today" in found.message


def test_it_is_silent_where_there_is_none_or_a_right_one():
    assert not _found(Tanh, _x())
    assert not _found(RightTangent, _x())


def test_a_wrong_backward_is_not_blamed_on_the_tangent():
    assert not _found(WrongBackward, _x())
