"""One of several ȳ is lost, flipped or exchanged."""

from __future__ import annotations

import torch

from gradlab.diagnoses import DroppedOutput

from .mutants import say, t, wrong


def test_says_which_output_has_the_wrong_sign() -> None:
    flipped = wrong(
        lambda x: (x.sin(), x.exp()), lambda x, y, u, v: u * x.cos() - v * x.exp()
    )
    assert "output 1 of 2 has the wrong sign" in say(DroppedOutput(), flipped, t(3))


def test_is_silent_where_there_is_one_output() -> None:
    assert not say(DroppedOutput(), wrong(torch.sin, lambda x, y, v: v * v), t(3))
