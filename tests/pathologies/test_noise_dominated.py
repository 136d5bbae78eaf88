import math
from collections.abc import Callable

import pytest

from gradlab import Snapshot
from gradlab.pathologies import Finding, History, NoiseDominated, Pathology

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


@pytest.mark.parametrize("net", ["mlp_relu_12", "transformer", "gru"])
def test_noise_in_place_of_a_gradient(watch: Watch, net: str) -> None:
    (finding,) = watch(NoiseDominated(), net, "noise_for_a_gradient")
    assert finding.step < 32
    assert abs(finding.evidence["cosine"]) < 0.05
    assert finding.evidence["of_the_others"] > 0.15
    assert "gradcheck" in finding.experiment


def test_it_names_the_layer(watch: Watch) -> None:
    (finding,) = watch(NoiseDominated(), "mlp_relu_12", "noise_for_a_gradient")
    assert finding.layers == ("10.weight",)


@pytest.mark.parametrize(
    ("cosines", "said"),
    [
        ([0.5, 0.0, 0.5, 0.4], True),
        ([0.5, -0.4, 0.5, 0.4], False),  # it bounces
        ([0.5, math.nan, 0.5, 0.4], False),  # frozen, or no gradient
        ([0.0, 0.0, 0.0, 0.0], False),  # all alike: a small batch
        ([0.0, 0.5, 0.5, 0.4], False),  # rare words of an embedding
        ([0.1, 0.0, 0.1, 0.1], False),  # the others have hardly a direction
        ([0.5, 0.2, 0.5, 0.4], False),
    ],
)
def test_one_layer_among_others(table: Table, cosines: list[float], said: bool) -> None:
    history = History()
    for step in range(24):
        wobble = 0.05 * (-1) ** step
        history.take(table("grad_cosine", [c + wobble for c in cosines], step))
    assert (NoiseDominated()(history) is not None) == said
