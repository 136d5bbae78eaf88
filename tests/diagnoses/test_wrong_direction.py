"""A scan that is not reversed."""

from __future__ import annotations

import torch

from gradlab.diagnoses import WrongDirection

from .mutants import say, t, wrong


def test_is_silent_about_a_gradient_that_is_shifted() -> None:
    late = wrong(torch.sin, lambda x, y, v: (v * x.cos()).roll(1, 0))
    assert not say(WrongDirection(), late, t(6))
