import math

import pytest
import torch

from gradlab import Row, Snapshot
from gradlab.pathologies import Finding, History, WrongBackward

NAMES = ("gradcheck_error", "gradcheck_cosine", "gradcheck_ratio")
NOTE = "gelu (layers/_gelu.py:64) in bfloat16"


def asked(ratios: list[float], error: float = 0.3, cosine: float = 0.7) -> list[int]:
    """At which readings of one call site, beside a right one, it says something."""
    history, said = History(), []
    for step, ratio in enumerate(ratios):
        found = WrongBackward()(_taken(history, step, ratio, error, cosine))
        said += [step] if found else []
    return said


def _taken(
    history: History, step: int, ratio: float, error: float, cosine: float
) -> History:
    rows = (Row("a:relu", "layer"), Row("b:gelu", "layer", note=NOTE))
    table = [[1e-7, 1.0, 0.3], [error, cosine, ratio]]
    if math.isnan(ratio):
        table[1] = [math.nan] * 3
    values = torch.tensor(table, dtype=torch.float64)
    history.take(Snapshot(step, "raw", rows, NAMES, values, ~values.isnan()))
    return history


def test_a_large_ratio_is_said_at_once() -> None:
    assert asked([0.5, 40.0]) == [1]


def test_a_smaller_one_when_it_lasts() -> None:
    assert asked([9.0, 10.0, math.nan, 12.0]) == [3]


@pytest.mark.parametrize("ratios", [[7.9] * 9, [9.0, 0.1, 0.1, 0.1] * 6])
def test_but_not_what_rounding_or_a_kink_explains(ratios: list[float]) -> None:
    assert asked(ratios) == []


def test_an_error_that_is_small_is_an_approximation() -> None:
    assert asked([1e3] * 5, error=9e-4) == []


def test_the_card() -> None:
    finding = WrongBackward()(_taken(History(), 4, 50.0, 0.3, 0.7))
    assert isinstance(finding, Finding)
    assert finding.symptom == (
        f"the hand-written backward of {NOTE} drifts: relative error 0.3, cosine 0.7, "
        "50 times what rounding explains"
    )
    assert finding.layers == ("b:gelu",)
    assert finding.evidence["ratio"] == 50
    assert finding.level == 0.3
    assert "gradcheck" in finding.experiment
