"""Paths that are missing, flipped or scaled."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.diagnoses import MissingTerm

from .mutants import say, t, wrong


def _in_rows(x: Tensor) -> Tensor:
    rows = []
    for row in x:
        square = row.square().mean()
        rows.append(row * torch.rsqrt(square))
    return torch.stack(rows)


def test_a_loop_is_told_as_one_path() -> None:
    def backward(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True))
        return scale * (v - y * (v * y).sum(-1, keepdim=True))

    sentence = say(MissingTerm(), wrong(_in_rows, backward), t(3, 4))
    assert "run 3 times, is multiplied by 4: N = 4" in sentence
    assert "square = row.square().mean()" in sentence


def test_the_path_of_one_argument() -> None:
    swish = wrong(
        lambda x: x * x.sigmoid(),
        lambda x, y, v: v * x * x.sigmoid() * (1 - x.sigmoid()),
    )
    assert "through argument 0 of `mul`" in say(MissingTerm(), swish, t(3, 4))


def test_is_silent_about_a_rule_that_is_no_path() -> None:
    swish = wrong(
        lambda x: x * x.sigmoid(), lambda x, y, v: v * (x.sigmoid() + x.cos())
    )
    assert not say(MissingTerm(), swish, t(3, 4))
