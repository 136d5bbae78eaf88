"""Right on some entries, scaled on the others."""

from __future__ import annotations

import torch

from gradlab.diagnoses import PartialFactor

from .mutants import say, t, wrong


def test_entries_that_get_nothing() -> None:
    gated = wrong(lambda x: x.exp(), lambda x, y, v: v * y * (x.abs() < 0.7))
    assert "the gradient returned is 0 in" in say(PartialFactor(), gated, t(3, 4))


def test_is_silent_about_one_entry() -> None:
    first = torch.eye(4, dtype=torch.bool)[0]
    one = wrong(torch.sin, lambda x, y, v: v * x.cos() * torch.where(first, 2, 1))
    assert not say(PartialFactor(), one, t(4))
