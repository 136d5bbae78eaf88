"""Finding the Functions in a graph, and standing in for them without a trace."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab import Function
from gradlab.layers import tanh
from gradlab.subject import (
    build,
    calls_recorded,
    functions,
    is_bare,
    own_forward_differentiated,
)


class Old(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: float) -> Tensor:
        return x.square() * k

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return torch.zeros_like(grad_y), None


class New(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, k: float) -> Tensor:
        with torch.no_grad():
            return x.square() * k

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return torch.zeros_like(grad_y), None


class Inherited(Old):
    pass


class ByVjp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: float) -> Tensor:
        return x.square() * k

    @staticmethod
    def vjp(ctx: Any, grad_y: Tensor) -> Any:
        return torch.zeros_like(grad_y), None


@pytest.mark.parametrize("cls", [Old, New, Inherited, ByVjp])
def test_autograd_of_the_own_forward_stands_in(cls: Any) -> None:
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    apply, before = cls.apply, dict(vars(cls))
    with own_forward_differentiated([cls]):
        (grad,) = torch.autograd.grad(apply(x, 3.0).sum(), x)
    assert torch.allclose(grad, 6 * x)
    assert dict(vars(cls)) == before
    (grad,) = torch.autograd.grad(apply(x, 3.0).sum(), x)
    assert not grad.any()


def test_the_class_is_restored_after_an_exception() -> None:
    before = dict(vars(Old))
    with pytest.raises(KeyError), own_forward_differentiated([Old]):
        raise KeyError
    assert dict(vars(Old)) == before


def test_calls_and_classes() -> None:
    x = torch.randn(3, requires_grad=True)
    subject = build(lambda x: New.apply(Old.apply(x, 2.0), 1.0), x)
    assert functions(subject) == (New, Old)
    assert not is_bare(subject)
    with calls_recorded([New, Old]) as calls:
        subject.run(subject.fresh())
    assert [call.function for call in calls] == [Old, New]
    assert (calls[0].args[1], calls[0].needed) == (2.0, (True, False))
    assert is_bare(build(Old, (x, 1.0)))
    assert is_bare(build(tanh, x))
    assert not is_bare(build(torch.tanh, x))


def test_a_gradlab_function_is_found_by_name() -> None:
    class Twice(Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Any:
            return 2 * grad_y

        @staticmethod
        def jvp(ctx: Any, dx: Tensor) -> Tensor:
            return 2 * dx

    (cls,) = functions(build(Twice, torch.randn(3, requires_grad=True)))
    assert cls.__name__ == "Twice"
