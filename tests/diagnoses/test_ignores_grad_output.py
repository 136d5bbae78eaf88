"""x̄ is the same for every ȳ."""

from __future__ import annotations

import torch

from gradlab.diagnoses import IgnoresGradOutput

from .mutants import say, t, wrong


def test_says_which_grad_output_is_assumed() -> None:
    ones = wrong(torch.sin, lambda x, y, v: x.cos())
    assert say(IgnoresGradOutput(), ones, t(3)).endswith("a grad_output of ones")


def test_says_so_of_any_constant() -> None:
    constant = wrong(torch.sin, lambda x, y, v: x * x)
    assert "two different ones" in say(IgnoresGradOutput(), constant, t(3))


def test_is_silent_where_one_entry_counts() -> None:
    first = wrong(torch.sin, lambda x, y, v: v[0] * x.cos())
    assert not say(IgnoresGradOutput(), first, t(3))
