"""ȳ read in another order."""

from __future__ import annotations

import torch

from gradlab.diagnoses import MisreadGradOutput

from .mutants import say, t, wrong


def test_memory_read_in_another_order() -> None:
    walked = wrong(torch.exp, lambda x, y, v: v.mT.reshape(v.shape) * y)
    assert "permuted to (1, 0) and reshaped back" in say(
        MisreadGradOutput(), walked, t(3, 4)
    )


def test_is_silent_where_the_gradient_itself_is_moved() -> None:
    moved = wrong(torch.exp, lambda x, y, v: (v * y).mT)
    assert not say(MisreadGradOutput(), moved, t(4, 4))
