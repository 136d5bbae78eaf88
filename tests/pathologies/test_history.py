import math

import numpy as np
import pytest
import torch

from gradlab import Row, Snapshot
from gradlab.pathologies import History
from gradlab.pathologies._depth import slope
from gradlab.pathologies._history import deviation, median


def snapshot(step: int, **numbers: float) -> Snapshot:
    values = torch.tensor([[n] for n in numbers.values()], dtype=torch.float64)
    rows = tuple(Row(name, "parameter") for name in numbers)
    there = torch.ones_like(values, dtype=torch.bool)
    return Snapshot(step, "applied", rows, ("q",), values, there)


def test_keeps_the_last_steps_and_the_first() -> None:
    history = History(window=4, start=2)
    for step in range(23):
        history.take(snapshot(step, a=step, b=-step))
        assert len(history) == min(step + 1, 4)
        assert history.steps().tolist() == list(range(max(0, step - 3), step + 1))
        assert history["q"][:, 0].tolist() == history.steps().tolist()
    assert history.start("q").tolist() == [[0, 0], [1, -1]]
    assert (history.step, history.seen) == (22, 23)
    assert history.last("q", 2).tolist() == [[21, -21], [22, -22]]


def test_rows_come_and_go() -> None:
    history = History(window=4)
    history.take(snapshot(0, a=1.0, b=2.0))
    history.take(snapshot(1, b=3.0))
    history.take(snapshot(2, c=5.0, b=4.0))
    columns = dict(zip([r.name for r in history.rows], history["q"].T, strict=True))
    there = history.available("q")
    assert {n: c.tolist()[-1] for n, c in columns.items() if n != "a"} == {
        "b": 4.0,
        "c": 5.0,
    }
    assert columns["b"].tolist() == [2.0, 3.0, 4.0]
    assert columns["a"][0] == 1.0
    assert np.isnan(columns["a"][1:]).all()
    assert there.sum() == 5


def test_medians_that_nan_cannot_poison() -> None:
    x = np.array([[1.0, math.nan], [2.0, math.inf], [3.0, math.nan], [math.nan] * 2])
    assert median(x)[0] == 2.0
    assert np.isnan(median(x)[1])
    assert deviation(x)[0] == pytest.approx(1.4826)
    even = np.array([1.0, 2.0, 3.0, 4.0, math.nan])
    assert median(even, axis=0) == 2.5


@pytest.mark.parametrize("n", [5, 12, 40])
def test_the_interval_of_a_slope_covers_the_true_one(n: int) -> None:
    maker = np.random.default_rng(0)
    trials = [slope(0.3 * np.arange(n) + maker.normal(size=n)) for _ in range(300)]
    inside = [fit.low <= 0.3 <= fit.high for fit in trials if fit is not None]
    assert np.mean(inside) >= 0.93


@pytest.mark.parametrize("sizes", [{"window": 0}, {"start": 0}])
def test_a_history_keeps_something(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one snapshot"):
        History(**sizes)
