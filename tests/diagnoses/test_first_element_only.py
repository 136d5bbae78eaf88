"""One entry or slice of ȳ for all."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.diagnoses import FirstElementOnly

from .mutants import say, t, wrong


def test_a_row_for_all_rows() -> None:
    first = wrong(torch.sin, lambda x, y, v: v[:1] * x.cos())
    assert "index 0 of dim 0 of grad_output is used, for all 3" in say(
        FirstElementOnly(), first, t(3, 4)
    )


def test_only_the_last_step() -> None:
    def backward(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        grad_x = torch.zeros_like(x)
        grad_x[-1] = v[-1] * x[-1].cos()
        return grad_x

    assert "index 2 of dim 0 of grad_output is used, the rest" in say(
        FirstElementOnly(), wrong(torch.sin, backward), t(3, 4)
    )


def test_is_silent_where_there_is_one_entry() -> None:
    total = wrong(lambda x: x.exp().sum(), lambda x, y, v: v * x)
    assert not say(FirstElementOnly(), total, t(3))
