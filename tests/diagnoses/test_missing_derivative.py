"""x̄ = ȳ."""

from __future__ import annotations

from gradlab.diagnoses import MissingDerivative

from .mutants import say, t, wrong


def test_is_silent_where_the_identity_is_one_of_two_paths() -> None:
    # There, the other path is missing.
    residual = wrong(lambda x: x + x.exp(), lambda x, y, v: v.clone())
    assert not say(MissingDerivative(), residual, t(3))
