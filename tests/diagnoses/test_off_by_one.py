"""The true gradient, shifted; its border is left aside."""

from __future__ import annotations

import pytest
import torch

from gradlab.diagnoses import OffByOne

from .mutants import say, t, wrong


@pytest.mark.parametrize("k", [1, -1, 2, -2])
def test_says_how_far_and_along_which_axis(k: int) -> None:
    shifted = wrong(torch.sin, lambda x, y, v: (v * x.cos()).roll(k, 0))
    sentence = say(OffByOne(), shifted, t(6, 2))
    assert f"shifted by {k:+d} along axis 0" in sentence


def test_is_silent_about_a_gradient_that_is_flat() -> None:
    flat = wrong(lambda x: x.sum(), lambda x, y, v: 2 * v.expand(x.shape))
    assert not say(OffByOne(), flat, t(6))
