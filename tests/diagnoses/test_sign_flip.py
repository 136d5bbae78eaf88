"""x̄ = −true x̄, on both grad_outputs."""

from __future__ import annotations

import torch

from gradlab.diagnoses import SignFlip

from .mutants import say, t, wrong


def test_says_so() -> None:
    flipped = wrong(torch.sin, lambda x, y, v: -v * x.cos())
    assert say(SignFlip(), flipped, t(3)).endswith("-1 times the true one")


def test_is_silent_about_another_negative_factor() -> None:
    scaled = wrong(torch.sin, lambda x, y, v: -1.1 * v * x.cos())
    assert not say(SignFlip(), scaled, t(3))
