"""Complex gradients are Jᴴ ȳ."""

from __future__ import annotations

import torch

from gradlab.diagnoses import MissingConjugate

from .mutants import say, t, wrong


def test_names_the_input_to_conjugate() -> None:
    product = wrong(
        lambda a, b: a * b.exp(), lambda a, b, y, v: (v * b.exp(), (v * y.conj()))
    )
    a, b = (t(4, seed=k, dtype=torch.complex128) for k in (0, 1))
    assert "conj" in say(MissingConjugate(), product, a, b)


def test_is_silent_about_real_functions() -> None:
    assert not say(MissingConjugate(), wrong(torch.exp, lambda x, y, v: v), t(3))
