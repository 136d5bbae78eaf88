"""The right entries in other places."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.diagnoses import WrongIndex

from .mutants import say, t, wrong


def test_entries_of_the_gradient() -> None:
    order = torch.tensor([2, 3, 1, 0])
    permuted = wrong(
        lambda x, i: x.exp()[i], lambda x, i, y, v: (x.exp() * _undone(v, i))[i]
    )
    assert "in other places: at [0] is the one of [2]" in say(
        WrongIndex(), permuted, t(4), order
    )


def _undone(v: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(v).index_copy(0, index, v)


def test_is_silent_about_new_numbers() -> None:
    assert not say(WrongIndex(), wrong(torch.sin, lambda x, y, v: v * x), t(4))
