"""The rule at another tensor."""

from __future__ import annotations

import torch

from gradlab.diagnoses import WrongOperand

from .mutants import p, say, t, wrong


def test_another_input() -> None:
    other = wrong(
        lambda a, b: a.exp() * b.cos(),
        lambda a, b, y, v: (v * b.exp() * b.cos(), -v * a.exp() * b.sin()),
    )
    assert "inputs[1] is used where inputs[0] is meant" in say(
        WrongOperand(), other, t(3), t(3, seed=1)
    )


def test_a_sign_inside() -> None:
    inside = wrong(
        lambda x: x * torch.exp(x), lambda x, y, v: v * torch.exp(-x) * (1 - x)
    )
    assert "true one for -inputs[0]" in say(WrongOperand(), inside, t(3))


def test_is_silent_about_an_unrelated_rule() -> None:
    assert not say(WrongOperand(), wrong(torch.log, lambda x, y, v: v * x.sin()), p(3))
