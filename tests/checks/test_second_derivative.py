from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.checks import SecondDerivative
from gradlab.subject import Mismatch, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(SecondDerivative()(build(fn, [x.requires_grad_() for x in inputs])))


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


class SavesTheSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        y = torch.tanh(x)
        ctx.save_for_backward(1 - y * y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * ctx.saved_tensors[0]


class DetachesOnePath(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y.detach())


class Once(Tanh):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Any):
        return Tanh.backward(ctx, grad_y)


class Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return grad_y * (ctx.saved_tensors[0] > 0)


class WritesInto(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        (y,) = ctx.saved_tensors
        slope = y * y
        grad_x = grad_y * slope
        slope.zero_()
        return grad_y - grad_x


class UsesNumpy(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        y = ctx.saved_tensors[0].detach().numpy()
        return torch.from_numpy(grad_y.numpy() * (1 - y * y))


class Float32Inside(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        y = ctx.saved_tensors[0].float()
        return (grad_y.float() * (1 - y * y)).to(grad_y.dtype)


def test_a_saved_intermediate_makes_it_zero():
    (found,) = _found(SavesTheSlope, _x())
    assert found.severity == "warning"
    assert "silently zero" in found.message


def test_a_detached_path_makes_it_wrong():
    (found,) = _found(DetachesOnePath, _x())
    assert found.severity == "warning"
    assert "wrong" in found.message


def test_a_crash_is_a_warning():
    (found,) = _found(WritesInto, _x())
    assert found.severity == "warning"
    assert "raises" in found.message


@pytest.mark.parametrize("function", [Once, UsesNumpy])
def test_what_is_declared_or_refused_is_a_note(function: Any):
    (found,) = _found(function, _x())
    assert found.severity == "note"
    assert found.verdict == "correct"


@pytest.mark.parametrize("function", [Tanh, Relu, Float32Inside])
def test_it_is_silent_about_a_true_one(function: Any):
    assert not _found(function, _x())


def test_at_a_kink_any_side_will_do():
    assert not _found(Relu, torch.zeros(3, 4, dtype=torch.float64))


def test_single_precision_is_enough():
    def single(x: Any):
        return Tanh.apply(x.float())

    assert not _found(single, _x())
    subject = build(lambda x: SavesTheSlope.apply(x.float()), [_x().requires_grad_()])
    assert [m.severity for m in SecondDerivative()(subject)] == ["warning"]


def test_a_chosen_gradient_is_left_alone():
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any):
            ctx.save_for_backward(x)
            return x.round()

        @staticmethod
        def backward(ctx: Any, grad_y: Any):
            return grad_y * torch.exp(-ctx.saved_tensors[0].detach().square())

    assert not _found(Round, _x())


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any):
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return -grad_y


def test_around_a_chosen_gradient_too():
    def adversary(x: Any, weight: Any):
        return torch.tanh(Reverse.apply(x @ weight)).square().sum()

    assert not _found(adversary, _x(3, 4), _x(4, 2))


def test_a_chosen_gradient_may_raise():
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any):
            return x.round()

        @staticmethod
        def backward(ctx: Any, grad_y: Any):
            slope = grad_y.exp()
            return slope.log().mul_(slope) / slope.add_(0)

    (found,) = _found(Round, 3 * _x())
    assert found.severity == "note"
