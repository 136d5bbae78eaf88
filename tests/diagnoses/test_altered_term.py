"""One op with the wrong local derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.diagnoses import AlteredTerm

from .mutants import say, t, wrong


def test_a_wrong_activation_inside() -> None:
    def backward(x: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
        h = torch.tanh(x @ w)
        return (v * h * 2 * (1 - h)) @ w.mT  # 1 - h² is meant

    inner = wrong(lambda x, w: torch.tanh(x @ w) ** 2, backward)
    assert not say(AlteredTerm(), inner, t(3, 4), t(4, 5))


def test_a_factor_that_one_op_lacks() -> None:
    def backward(x: Tensor, s: Tensor, w: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return ((v * (x * s @ w).cos()) @ w.mT) * s * s + v @ w.mT

    both = wrong(lambda x, s, w: (x * s @ w).sin() + x @ w, backward)
    sentence = say(AlteredTerm(), both, t(3, 4), t(4), t(4, 5))
    assert "a factor inputs[1] too much" in sentence
