"""Only a backward that differs from run to run."""

from __future__ import annotations

import torch

from gradlab.diagnoses import NotDeterministic

from .mutants import say, t, wrong


def test_is_silent_about_a_backward_that_is_merely_wrong() -> None:
    assert not say(NotDeterministic(), wrong(torch.sin, lambda x, y, v: v), t(3))


def test_a_mask_that_is_drawn_again_is_not_deterministic() -> None:
    noisy = wrong(torch.sin, lambda x, y, v: v * (torch.rand(64) < 0.5))
    assert "not deterministic" in say(NotDeterministic(), noisy, t(64))
