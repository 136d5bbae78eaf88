import math

import numpy as np
import pytest

from gradlab.tensorboard._movers import Movers

ALWAYS = np.array([True, False, False, False])


def chosen(movers: Movers, *numbers: float) -> list[int]:
    """The total is always chosen; an infinite number stands for none."""
    values = np.array(numbers)
    return movers("grad_norm", values, ~np.isinf(values), ALWAYS).tolist()


def test_first_everything_then_what_moved_most_relative_to_itself() -> None:
    movers = Movers(1)
    assert chosen(movers, 1.0, 1e-6, 1.0, 100.0) == [0, 1, 2, 3]
    assert chosen(movers, 1.0, 2e-6, 1.5, 120.0) == [0, 1]
    assert chosen(movers, 1.0, 2e-6, 1.5, 120.0) == [0, 2]
    assert chosen(movers, 1.0, 2e-6, 1.5, 120.0) == [0, 3]


def test_what_stands_still_is_not_chosen() -> None:
    movers = Movers(2)
    chosen(movers, 1.0, 1.0, 0.0, math.nan)
    assert chosen(movers, 1.0, 1.0, 0.0, math.nan) == [0]


def test_a_slow_drift_is_seen_in_the_end() -> None:
    movers, seen = Movers(1), []
    for step in range(20):
        # The second row doubles and halves, the third grows by a tenth a step.
        seen += chosen(movers, 1.0, 1.0 + step % 2, 1.1**step, 1.0)[1:]
    assert seen.count(2) > 1


@pytest.mark.parametrize(
    ("before", "after"), [(math.nan, 1.0), (1.0, math.nan), (0.0, 1e-30), (1.0, -1.0)]
)
def test_what_turns_is_a_great_move(before: float, after: float) -> None:
    movers = Movers(1)
    chosen(movers, 1.0, 1.0, 1.0, before)
    assert chosen(movers, 1.0, 1.9, 1.9, after) == [0, 3]


def test_what_is_not_available_is_not_chosen_and_new_when_it_comes() -> None:
    movers = Movers(1)
    assert chosen(movers, 1.0, 1.0, 1.0, math.inf) == [0, 1, 2]
    assert chosen(movers, 1.0, 5.0, 9.0, math.inf) == [0, 2]
    assert chosen(movers, 1.0, 5.0, 9.0, 1.0) == [0, 1, 3]


def test_after_a_loss_everything_is_new() -> None:
    movers = Movers(1)
    chosen(movers, 1.0, 1.0, 1.0, 1.0)
    movers.forget()
    assert chosen(movers, 1.0, 1.0, 1.0, 1.0) == [0, 1, 2, 3]
