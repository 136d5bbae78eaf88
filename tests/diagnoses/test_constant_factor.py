"""x̄ = c · true x̄, c named by the numbers of the call."""

from __future__ import annotations

import pytest
import torch

from gradlab.diagnoses import ConstantFactor

from .mutants import say, t, wrong


@pytest.mark.parametrize(
    ("c", "name"),
    [
        (4.0, "N = 4 (inputs[0].shape[1])"),
        (1 / 12, "1/N with N = 12 (inputs[0].numel())"),
        (3**0.5, "√d with d = 3 (inputs[0].shape[0])"),
        (4 / 3, "4/3, as n/(n − 1) of n = 4 (inputs[0].shape[1]) would be"),
        (2.0, "2"),
        (0.3, "inputs[1] = 0.3"),
        (1 / 0.7, "1/(1 − inputs[1]) with inputs[1] = 0.3"),
        (-0.5, "1/2, and the sign is flipped"),
    ],
)
def test_names_the_factor(c: float, name: str) -> None:
    scaled = wrong(lambda x, p: x.sin(), lambda x, p, y, v: c * v * x.cos())
    assert say(ConstantFactor(), scaled, t(3, 4), 0.3).endswith(f": {name}")


def test_reports_a_factor_without_a_name() -> None:
    scaled = wrong(torch.sin, lambda x, y, v: 1.2345 * v * x.cos())
    assert say(ConstantFactor(), scaled, t(3, 4)) == (
        "the gradient is 1.2345 times the true one"
    )


def test_is_silent_where_the_factor_depends_on_grad_output() -> None:
    normed = wrong(torch.sin, lambda x, y, v: v / v.norm() * x.cos())
    assert not say(ConstantFactor(), normed, t(3, 4))
