from typing import Any

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.checks import Autocast
from gradlab.subject import Mismatch, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(Autocast()(build(fn, [x.requires_grad_() for x in inputs])))


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


class MixesDtypes(Linear):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, weight = ctx.saved_tensors
        return grad_y @ weight, grad_y.t() @ x, grad_y.sum(0)


class InFloat32(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Any, weight: Any, bias: Any):
        return Linear.forward(ctx, x, weight, bias)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad_y: Any):
        return Linear.backward(ctx, grad_y)


class ForgetsCustomBwd(InFloat32):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return Linear.backward(ctx, grad_y)


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    return _x(3, 4), _x(5, 4) * 0.7, _x(5)


def test_mixed_dtypes_in_the_backward_are_an_error():
    (found,) = _found(MixesDtypes, *_inputs())
    assert found.severity == "error"
    assert "custom_fwd" in found.hint


def test_custom_fwd_alone_is_a_warning():
    (found,) = _found(ForgetsCustomBwd, *_inputs())
    assert found.severity == "warning"
    assert "custom_bwd" in found.hint


@pytest.mark.parametrize("function", [Linear, InFloat32, gradlab.layers.linear])
def test_it_is_silent_about_a_right_one(function: Any):
    assert not _found(function, *_inputs())


def test_a_surrounding_autocast_is_left_as_it_was():
    with torch.autocast("cpu", torch.bfloat16):
        _found(Linear, *_inputs())
        assert torch.is_autocast_enabled("cpu")


class NeverHeardOfDtypes(torch.autograd.Function):
    """The linear layer of torch's own notes on extending it."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any):
        ctx.save_for_backward(x, weight)
        return x.mm(weight.t())

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        x, weight = ctx.saved_tensors
        return grad_y.mm(weight), grad_y.t().mm(x)


class HalfOfIt(NeverHeardOfDtypes):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, x: Any, weight: Any):
        return NeverHeardOfDtypes.forward(ctx, x, weight)


def test_to_stop_is_a_fault_only_of_one_that_thought_of_dtypes():
    (found,) = _found(NeverHeardOfDtypes, *_inputs()[:2])
    assert (found.severity, found.verdict) == ("note", "correct")
    (found,) = _found(HalfOfIt, *_inputs()[:2])
    assert (found.severity, found.verdict) == ("error", "fragile")


def test_a_write_to_grad_output_is_not_taken_for_rounding():
    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, grad_y: Any):
            return grad_y.mul_(ctx.saved_tensors[0])

    assert not _found(Exp, _x())
