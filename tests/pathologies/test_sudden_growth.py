import math
from collections.abc import Callable

import pytest

from gradlab import Snapshot
from gradlab.pathologies import Finding, History, Pathology, SuddenGrowth

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


def test_a_learning_rate_far_too_large_diverges(watch: Watch) -> None:
    (finding, *_) = watch(SuddenGrowth(), "mlp_relu_12", "learning_rate_x300")
    assert finding.step < 8
    assert finding.evidence["ratio"] > 30
    assert "learning rate" in finding.causes[0]


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ([100.0, 100.0, 100.0], True),
        ([100.0, 1.0, 100.0], False),  # one bad batch, and one more
        ([10.0, 10.0, 10.0], False),
        ([math.nan] * 3, False),  # that is said by another
    ],
)
def test_for_three_readings_in_a_row(
    table: Table, late: list[float], said: bool
) -> None:
    history = History()
    # A NaN and a spike in the past move neither the median nor the deviation.
    past = [1.0, 1.2, math.nan, 0.9, 1000.0, 1.1, 1.0]
    for step, norm in enumerate([*past, *late]):
        history.take(table("grad_norm", [1.0], step, total=norm))
    assert (SuddenGrowth()(history) is not None) == said
