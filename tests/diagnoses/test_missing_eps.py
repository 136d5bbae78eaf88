"""ε in the forward and not in the backward."""

from __future__ import annotations

import torch

from gradlab.diagnoses import MissingEps

from .mutants import p, say, wrong


def test_the_line_of_a_constant_is_told() -> None:
    safe = wrong(lambda x: torch.log(x + 1e-4), lambda x, y, v: v / x)
    sentence = say(MissingEps(), safe, p(3))
    assert "the constant 0.0001 is missing" in sentence
    assert "test_missing_eps.py" in sentence


def test_is_silent_about_large_numbers() -> None:
    shifted = wrong(lambda x: torch.log(x + 0.5), lambda x, y, v: v / x)
    assert not say(MissingEps(), shifted, p(3))
