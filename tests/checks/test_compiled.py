from typing import Any

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.checks import Compiled
from gradlab.subject import Mismatch, NotChecked, build


def _x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape or (3, 4), generator=generator, dtype=torch.float64)


def _found(fn: object, *inputs: Tensor) -> list[Mismatch]:
    return list(Compiled()(build(fn, [x.requires_grad_() for x in inputs])))


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


class DiffersCompiled(Tanh):
    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        factor = 2 if torch.compiler.is_compiling() else 1
        (y,) = ctx.saved_tensors
        return factor * grad_y * (1 - y * y)


class BreaksTheGraph(Tanh):
    @staticmethod
    def forward(ctx: Any, x: Any):
        ctx.total = float(x.sum())
        return Tanh.forward(ctx, x)


class Chosen(torch.autograd.Function):
    @staticmethod
    def forward(x: Any):
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any):
        pass

    @staticmethod
    def backward(ctx: Any, grad_y: Any):
        return 3 * grad_y


def test_another_gradient_is_an_error():
    (found,) = _found(DiffersCompiled, _x())
    assert found.severity == "error"


def test_a_graph_break_is_a_note():
    (found,) = _found(BreaksTheGraph, _x())
    assert found.severity == "note"


def test_a_custom_backward_dropped_by_torch_is_a_note():
    (found,) = _found(Chosen, _x())
    assert found.severity == "note"
    assert "pytorch#193279" in found.message


def test_it_is_silent_about_a_right_one_and_about_gradlab():
    assert Compiled().opt_in
    assert not _found(Tanh, _x())
    assert not _found(gradlab.layers.tanh, _x())


def test_random_numbers_are_not_checked():
    with pytest.raises(NotChecked, match="random"):
        _found(lambda x: Tanh.apply(x) * torch.rand(3, 4), _x())
