"""A tensor of the call too often, or not at all."""

from __future__ import annotations

import torch

from gradlab.diagnoses import ExtraFactor

from .mutants import say, t, wrong


def test_an_operand_of_a_matmul() -> None:
    unscaled = wrong(lambda x, s, w: (x * s) @ w, lambda x, s, w, y, v: v @ w.mT)
    assert "lacks the factor inputs[1]" in say(
        ExtraFactor(), unscaled, t(3, 4), t(4), t(4, 5)
    )


def test_the_simplest_form_is_said() -> None:
    exponential = wrong(torch.exp, lambda x, y, v: v * y * y)
    assert "a factor output too much" in say(ExtraFactor(), exponential, t(3))


def test_is_silent_about_a_sum() -> None:
    swish = wrong(lambda x: x * x.sigmoid(), lambda x, y, v: v * (x.sigmoid() + y))
    assert not say(ExtraFactor(), swish, t(3, 4))
