from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.checks import Vmap
from gradlab.subject import Mismatch, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(Vmap()(build(fn, [x.requires_grad_() for x in inputs])))


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


class NoRule(Tanh):
    generate_vmap_rule = False


class OwnRule(NoRule):
    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any):
        return OwnRule.apply(x.movedim(in_dims[0], 0)), 0


class IgnoresInDims(NoRule):
    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any):
        return IgnoresInDims.apply(x), 0


class TakesTheFirst(NoRule):
    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any):
        first = x.select(in_dims[0], 0)
        return TakesTheFirst.apply(first.expand(info.batch_size, *first.shape)), 0


class Branches(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        if ctx.saved_tensors[0].sum().item() > 1e9:
            return grad_y
        return Tanh.backward(ctx, grad_y)


def test_a_rule_that_mixes_points_is_an_error():
    assert {m.severity for m in _found(TakesTheFirst, _x())} == {"error"}


@pytest.mark.parametrize("function", [IgnoresInDims, Branches])
def test_a_rule_that_cannot_be_used_is_a_warning(function: Any):
    assert "warning" in [m.severity for m in _found(function, _x())]


def test_no_rule_is_one_note():
    (found,) = _found(NoRule, _x())
    assert found.severity == "note"


@pytest.mark.parametrize("function", [Tanh, OwnRule])
def test_it_is_silent_about_a_right_one(function: Any):
    assert not _found(function, _x())


def test_random_numbers_are_no_mismatch():
    class Dropout(Tanh):
        @staticmethod
        def forward(x: Any):
            return x * torch.rand(x.shape, dtype=x.dtype).clamp(max=1.0) * 0 + x.tanh()

    assert not [m for m in _found(Dropout, _x()) if m.severity != "note"]


@pytest.mark.parametrize("numpy", [True, False])
def test_data_of_a_stack_is_no_segmentation_fault(numpy: bool):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any):
            return 2 * x

        @staticmethod
        def backward(ctx: Any, grad_y: Any):
            if numpy:
                return torch.from_numpy(2 * grad_y.data.cpu().numpy())
            return 2 * grad_y.data

    (found,) = _found(Twice, _x())
    assert (found.severity, found.verdict) == ("note", "correct")
    assert "data" not in vars(torch.Tensor)
