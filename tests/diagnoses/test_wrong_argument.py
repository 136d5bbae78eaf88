"""The true gradient for another number."""

from __future__ import annotations

from gradlab.diagnoses import WrongArgument

from .mutants import p, say, t, wrong


def test_an_exponent() -> None:
    power = wrong(lambda x, n: x**n, lambda x, n, y, v: v * x ** (1 / n - 1) / n)
    assert "1/inputs[1]" in say(WrongArgument(), power, p(3), 3.0)


def test_is_silent_about_other_mistakes() -> None:
    scaled = wrong(lambda x, s: (s * x).sin(), lambda x, s, y, v: v * (s * x).cos() * x)
    assert not say(WrongArgument(), scaled, t(3), 0.7)
