"""The pattern of wrong entries, told only where it is exactly that set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.subject import build, locate


def say(wrong: Tensor, *inputs: Any) -> str:
    subject = build(lambda x, *rest: x * 2, inputs)
    return locate(wrong, wrong.to(torch.float64), subject, 0)


def x(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def none(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bool)


def test_every_entry() -> None:
    assert say(~none(3, 4), x(3, 4)).startswith("every entry, worst at [0, 0]")


def test_no_pattern_is_only_a_share() -> None:
    wrong = none(3, 4)
    wrong[0, 1] = wrong[2, 3] = wrong[1, 0] = True
    assert say(wrong, x(3, 4)) == "3 of 12 entries, worst at [0, 1]"


@pytest.mark.parametrize(
    ("index", "pattern"),
    [
        ((-1,), "the last row 3 (dim 0 of 4)"),
        ((slice(None), 1), "channel 1 (dim 1 of 6)"),
        ((slice(2, None),), "from index 2 of dim 0 on"),
        ((slice(None), slice(0, 2)), "up to index 1 of dim 1"),
        ((0, 0), "the first entry"),
    ],
)
def test_slices(index: Any, pattern: str) -> None:
    wrong = none(4, 6)
    wrong[index] = True
    assert say(wrong, x(4, 6)).endswith(f": only {pattern}")


def test_a_block_tail() -> None:
    wrong = none(67)
    wrong[64:] = True
    assert "only from index 64 of dim 0 on (a block tail?)" in say(wrong, x(67))
    wrong = none(9, 9)
    wrong.view(-1)[64:] = True
    assert "only from flat index 64 on (a block tail?)" in say(wrong, x(9, 9))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_threshold_is_a_short_number(sign: int) -> None:
    values = torch.tensor([[0.1, -2.7, 1.3, 4.2], [-0.4, 3.4, 0.9, -3.1]])
    values = (sign * values).double().requires_grad_()
    wrong = sign * values > 2
    assert say(wrong, values).endswith("x > 2" if sign > 0 else "x < -2")
    assert say(values.abs() > 2, values).endswith("where |x| > 2")


def test_zeros() -> None:
    values = torch.tensor([0.0, 1.0, -1.0, 0.0, 2.0]).double().requires_grad_()
    assert say(values == 0, values).endswith("only where x == 0")


def test_an_ignored_target() -> None:
    target = torch.tensor([2, -100, 0, 1, -100])
    wrong = (target == -100).unsqueeze(1).expand(5, 3)
    assert say(wrong, x(5, 3), target).endswith("== -100")
    assert say(~wrong, x(5, 3), target).endswith("!= -100")


def test_a_mask() -> None:
    mask = torch.tensor([True, False, False, True, False])
    assert say(mask, x(5), mask).endswith("== True")


def test_an_index_that_occurs_twice() -> None:
    index = torch.tensor([1, 4, 1, 0])
    wrong = none(6, 3)
    wrong[1] = True
    assert "occurs more than once in" in say(wrong, x(6, 3), index)


def test_the_diagonal() -> None:
    eye = torch.eye(4, dtype=torch.bool)
    assert say(eye, x(4, 4)).endswith("only the diagonal")
    assert say(~eye, x(4, 4)).endswith("only entries off the diagonal")


def test_a_scalar_input() -> None:
    assert say(torch.tensor(True), x()) == "every entry"
