from collections.abc import Callable

import pytest

from gradlab import Snapshot
from gradlab.pathologies import ClippingAlwaysOn, Finding, History, Pathology

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


@pytest.mark.parametrize("net", ["mlp_relu_4", "mlp_batch_norm"])
def test_a_clip_value_a_hundred_times_too_small(watch: Watch, net: str) -> None:
    (finding,) = watch(ClippingAlwaysOn(), net, "clipped_to_nothing")
    assert finding.step == 16
    assert 0.002 < finding.evidence["coefficient"] < 0.1
    assert finding.evidence["share_clipped"] == 1


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
