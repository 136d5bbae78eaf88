"""The conformance suite fails where it should: planted faults, and who sees them."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab import Function
from gradlab.layers._tanh import TanhFunction, opinfo
from tests.conformance import outcome, samples


class WrongKernel(TanhFunction):
    """The fused spelling is off by one part in a million."""

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y) * (1 + 1e-6)


class WrongRule(TanhFunction):
    """Only what runs under create_graph and torch.func is wrong."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y)


class WrongTangent(TanhFunction):
    @staticmethod
    def jvp(ctx: Any, dx: Tensor) -> Tensor:
        return dx


class ConstantRule(TanhFunction):
    """The first derivative is right, but its own derivative is cut off."""

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad_y * (1 - y * y).detach()


class WritesGradOutput(TanhFunction):
    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad_y.mul_(1 - y * y)


class KeepsATensor(TanhFunction):
    """Saved behind the back of autograd: no hook sees it."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.y = output.detach()

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        return grad_y * (1 - ctx.y * ctx.y)

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Any:
        return NotImplemented


class AssumesContiguous(TanhFunction):
    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad_y.as_strided(y.shape, y.stride()) * (1 - y * y)


class Imprecise(TanhFunction):
    """Right in float64, and three decimal digits in float32."""

    @staticmethod
    def fused_backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        slope = 1 - y * y
        return grad_y * (slope.half().float() if y.dtype == torch.float32 else slope)


class NoTransforms(TanhFunction):
    """A note for others: what is optional for a Function, a layer has."""

    generate_vmap_rule = False


FAULTS = {
    WrongKernel: {"matches_reference", "matches_torch", "drop_in_op"},
    WrongRule: {"func_grad", "second_derivative", "transforms_match_reference"},
    WrongTangent: {"forward_mode", "transforms_match_reference"},
    ConstantRule: {"second_derivative", "transforms_match_reference"},
    WritesGradOutput: {"leaves_arguments_alone"},
    KeepsATensor: {"keeps_nothing", "second_derivative"},
    AssumesContiguous: {"any_grad_output_layout"},
    Imprecise: {"accurate_as_torch", "low_precision"},
    NoTransforms: {"vmap"},
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_seen(fault: type[Function]) -> None:
    planted = dataclasses.replace(opinfo, op=fault.call)
    (sample,) = (sample for sample in samples(planted) if sample.name == "4d")
    for cell in FAULTS[fault]:
        assert outcome(opinfo, sample, cell).state == "holds"
        assert outcome(planted, sample, cell).state == "fails", cell
