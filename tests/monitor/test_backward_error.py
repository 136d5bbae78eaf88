"""An error counts where rounding, a kink or a tie do not explain it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.monitor._backward_error import BackwardError, backward_error
from gradlab.monitor._replay import Slice


def compare(
    explicit: Callable[..., Any],
    reference: Callable[..., Any],
    *args: Tensor,
    grad: Tensor | None = None,
) -> BackwardError | None:
    generator = torch.Generator().manual_seed(0)
    y = reference(*args)
    if grad is None:
        grad = torch.randn(y.shape, generator=generator).to(y.dtype)
    call = Slice(args, {}, (True,) * len(args), (grad,), None)
    return backward_error(explicit, reference, call)


def with_gradient(
    forward: Callable[[Tensor], Tensor], rule: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    class Explicit(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Tensor:
            return rule(*ctx.saved_tensors, grad_y)

    return Explicit.apply


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_same_op_is_a_few_roundings_off(dtype: torch.dtype) -> None:
    found = compare(torch.sin, torch.sin, draw(8, 9, dtype=dtype))
    assert found is not None
    assert found.error < 2 * torch.finfo(dtype).eps
    assert found.ratio < 2
    assert found.cosine > 0.999


def test_the_numbers_of_a_wrong_factor() -> None:
    explicit = with_gradient(torch.sin, lambda x, g: 0.75 * g * x.cos())
    found = compare(explicit, torch.sin, draw(8, 9))
    assert found is not None
    assert found.error == pytest.approx(0.25, rel=1e-5)
    assert found.cosine == pytest.approx(1.0)
    assert found.ratio > 1e5


def test_any_subgradient_at_a_kink_will_do() -> None:
    x = draw(8, 9)
    x[::2] = 0
    for at_zero in (0.0, 0.5, 1.0):
        explicit = with_gradient(
            torch.relu, lambda x, g, v=at_zero: g * torch.heaviside(x, x.new_tensor(v))
        )
        found = compare(explicit, torch.relu, x)
        assert found is not None
        assert found.ratio < 1


def test_but_not_beside_it() -> None:
    x = draw(8, 9)
    x[::2] = 0
    explicit = with_gradient(torch.relu, lambda x, g: g * (x >= 0) + g * (x > 1.5))
    found = compare(explicit, torch.relu, x)
    assert found is not None
    assert found.ratio > 1e4


def test_either_of_two_equal_maxima_will_do() -> None:
    x = draw(6, 8)
    x[:, 3] = x[:, 5] = 4.0
    x[0] = torch.arange(8.0)
    found = compare(lambda x: x.max(1).values, lambda x: x.amax(1), x)
    assert found is not None
    assert found.ratio < 1


def test_terms_that_cancel_are_noise() -> None:
    # ȳ is constant along the rows, where a softmax has no gradient.
    x, grad = draw(8, 9), torch.ones(8, 9)

    def softmax(x: Tensor) -> Tensor:
        return x.exp() / x.exp().sum(1, keepdim=True)

    found = compare(lambda x: x.softmax(1), softmax, x, grad=grad)
    assert found is not None
    assert found.ratio < 1


def test_but_a_gradient_there_is_wrong() -> None:
    x, grad = draw(8, 9), torch.ones(8, 9)
    explicit = with_gradient(lambda x: x.softmax(1), lambda x, g: g * x.softmax(1))
    found = compare(explicit, lambda x: x.softmax(1), x, grad=grad)
    assert found is not None
    assert found.ratio > 1e4


def test_a_gradient_where_there_is_none() -> None:
    def flat(x: Tensor) -> Tensor:
        return x.clamp(-1, 1)

    explicit = with_gradient(flat, lambda x, g: g)
    found = compare(explicit, flat, 3 + draw(8, 9).abs())
    assert found is not None
    assert (found.error, found.cosine) == (math.inf, 0.0)
    assert found.ratio > 1e4


def test_a_gradient_that_is_missing() -> None:
    explicit = with_gradient(torch.sin, lambda x, g: torch.zeros_like(g))
    found = compare(explicit, torch.sin, draw(8, 9))
    assert found is not None
    assert (found.error, found.cosine) == (1.0, 0.0)


def test_where_ȳ_is_not_finite_nothing_can_be_said() -> None:
    grad = torch.full((8, 9), math.inf)
    assert compare(torch.sin, torch.sin, draw(8, 9), grad=grad) is None


def test_what_float16_cannot_hold_is_not_lost() -> None:
    x = torch.full((4, 4), 300.0, dtype=torch.float16)
    grad = torch.full((4, 4), 3e4, dtype=torch.float16)
    assert compare(torch.square, torch.square, x, grad=grad) is None
