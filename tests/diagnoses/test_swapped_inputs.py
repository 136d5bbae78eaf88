"""Two gradients in the place of each other."""

from __future__ import annotations

from gradlab.diagnoses import SwappedInputs

from .mutants import say, t, wrong


def test_is_silent_where_shapes_differ() -> None:
    other = wrong(lambda a, b: a * b, lambda a, b, y, v: (v * a, (v * a).sum(0)))
    assert not say(SwappedInputs(), other, t(3, 4), t(4))
