"""m(ȳ) or m(x̄) with m no multiple."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradlab.diagnoses import NonlinearGradOutput

from .mutants import say, t, wrong


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torch.abs, "absolute value"),
        (torch.sgn, "only the sign"),
        (torch.relu, "negative entries of grad_output are set to 0"),
        (lambda v: v / v.abs().max(), "divided by its largest entry"),
    ],
)
def test_says_which(change: Any, words: str) -> None:
    nonlinear = wrong(torch.exp, lambda x, y, v: change(v) * y)
    assert words in say(NonlinearGradOutput(), nonlinear, t(3, 4))


def test_a_clamp_of_the_gradient_itself() -> None:
    clamped = wrong(lambda x: x @ x.mT, lambda x, y, v: ((v + v.mT) @ x).clamp(-1, 1))
    sentence = say(NonlinearGradOutput(), clamped, t(3, 4))
    assert sentence == "the gradient is clamped to ±1"


def test_is_silent_about_linear_mistakes() -> None:
    assert not say(NonlinearGradOutput(), wrong(torch.exp, lambda x, y, v: v * x), t(3))
