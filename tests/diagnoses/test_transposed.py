"""Axes in the wrong order."""

from __future__ import annotations

import torch

from gradlab.diagnoses import Transposed

from .mutants import say, t, wrong


def test_a_forgotten_transpose_before_a_reshape() -> None:
    forgotten = wrong(
        lambda x: x.transpose(0, 1).reshape(2, 6),
        lambda x, y, v: v.reshape(x.shape),
    )
    sentence = say(Transposed(), forgotten, t(3, 2, 2))
    assert "transpose is missing" in sentence or "read as" in sentence


def test_is_silent_about_a_permutation_of_entries() -> None:
    rolled = wrong(torch.sin, lambda x, y, v: (v * x.cos()).roll(1))
    assert not say(Transposed(), rolled, t(5))
