from collections.abc import Callable

import pytest

from gradlab import Snapshot
from gradlab.pathologies import Exploding, Finding, History, Pathology

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


def test_weights_five_times_too_large_explode(watch: Watch) -> None:
    (finding,) = watch(Exploding(), "mlp_relu_12", "huge_init")
    assert finding.step < 12
    assert 3 < finding.evidence["factor_a_layer"] < 8
    assert finding.evidence["factor_at_the_start"] > 3
    assert finding.layers[0].endswith("bias")


@pytest.mark.parametrize(("factor", "said"), [(3.0, True), (1.1, False), (0.2, False)])
def test_beyond_the_band_only(table: Table, factor: float, said: bool) -> None:
    history = History()
    for step in range(8):
        history.take(table("grad_rms", [factor**-i for i in range(8)], step))
    assert (Exploding()(history) is not None) == said
