"""x̄ = c · true x̄, c named by the numbers of the call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradlab.diagnoses import ConstantFactor

from .mutants import say, t, wrong


@pytest.mark.parametrize(
    ("c", "name"),
    [
        (lambda x: x.shape[1], "N = 4 (inputs[0].shape[1])"),
        (lambda x: 1 / x.numel(), "1/N with N = 12 (inputs[0].numel())"),
        (lambda x: x.shape[0] ** 0.5, "√d with d = 3 (inputs[0].shape[0])"),
        (
            lambda x: x.shape[1] / (x.shape[1] - 1),
            "4/3, as n/(n − 1) of n = 4 (inputs[0].shape[1]) would be",
        ),
        (lambda x: 2.0, "2"),
        (lambda x: 0.3, "inputs[1] = 0.3"),
        (lambda x: 1 / 0.7, "1/(1 − inputs[1]) with inputs[1] = 0.3"),
        (lambda x: -0.5, "1/2, and the sign is flipped"),
        # Equal to a size by chance: at another size it is still the same number.
        (lambda x: 2 / 3, "2/3, whatever the sizes"),
        (lambda x: 4.0, "4, at any size"),
        (lambda x: 0.75, "3/4, whatever the sizes"),
        (lambda x: 1 / 12, "1/12, whatever the sizes"),
    ],
)
def test_names_the_factor(c: Callable[[Tensor], float], name: str) -> None:
    scaled = wrong(lambda x, p: x.sin(), lambda x, p, y, v: c(x) * v * x.cos())
    assert say(ConstantFactor(), scaled, t(3, 4), 0.3).endswith(f": {name}")


def test_reports_a_factor_without_a_name() -> None:
    scaled = wrong(torch.sin, lambda x, y, v: 1.2345 * v * x.cos())
    assert say(ConstantFactor(), scaled, t(3, 4)) == (
        "the gradient is 1.2345 times the true one"
    )


def test_is_silent_where_the_factor_depends_on_grad_output() -> None:
    normed = wrong(torch.sin, lambda x, y, v: v / v.norm() * x.cos())
    assert not say(ConstantFactor(), normed, t(3, 4))
