"""A sum over other dims, or no sum."""

from __future__ import annotations

import torch

from gradlab.diagnoses import Unreduced

from .mutants import say, t, wrong


def test_a_maximum_for_the_sum() -> None:
    largest = wrong(lambda b, x: x + b[:, None], lambda b, x, y, v: (v.amax((0, 2)), v))
    sentence = say(Unreduced(), largest, t(4), t(3, 4, 5))
    assert "the maximum over dims 0 and 2; it is the sum over dims 0 and 2" in sentence


def test_a_gradient_that_is_flat_along_a_dim() -> None:
    flat = wrong(
        torch.exp, lambda x, y, v: (v * y).mean(1, keepdim=True).expand(x.shape)
    )
    assert "mean of the true one over dim 1" in say(Unreduced(), flat, t(3, 4))


def test_is_silent_where_nothing_is_broadcast() -> None:
    assert not say(Unreduced(), wrong(torch.exp, lambda x, y, v: v * x), t(3, 4))
