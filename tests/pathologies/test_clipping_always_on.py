from collections.abc import Callable

import pytest

from gradlab import Snapshot
from gradlab.pathologies import ClippingAlwaysOn, History

Table = Callable[..., Snapshot]


@pytest.mark.parametrize(("coefficient", "said"), [(0.01, True), (0.5, False)])
def test_far_below_one_and_always(table: Table, coefficient: float, said: bool) -> None:
    history = History()
    for step in range(32):
        history.take(table("clip_coefficient", [1.0], step, total=coefficient))
    assert (ClippingAlwaysOn()(history) is not None) == said


def test_a_clip_now_and_then_is_what_it_is_for(table: Table) -> None:
    history = History()
    for step in range(32):
        total = 1.0 if step % 4 else 0.01
        history.take(table("clip_coefficient", [1.0], step, total=total))
    assert ClippingAlwaysOn()(history) is None
