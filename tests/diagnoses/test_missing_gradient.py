"""None and zeros are told apart."""

from __future__ import annotations

import torch

from gradlab.diagnoses import MissingGradient

from .mutants import say, t, wrong


def test_is_silent_about_a_gradient_that_is_small() -> None:
    small = wrong(torch.sin, lambda x, y, v: 1e-12 * v)
    assert not say(MissingGradient(), small, t(3))
    none = wrong(lambda x, w: x * w, lambda x, w, y, v: (v * w, None))
    assert "None for" in say(MissingGradient(), none, t(3), t(3, seed=1), of=1)
