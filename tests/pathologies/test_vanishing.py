import math
from collections.abc import Callable

import pytest

from gradlab import Snapshot
from gradlab.pathologies import Finding, History, Pathology, Vanishing

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


@pytest.mark.parametrize("net", ["mlp_tanh_8", "mlp_relu_12", "mlp_relu_10_sgd"])
def test_sigmoids_in_depth_vanish(watch: Watch, net: str) -> None:
    (finding,) = watch(Vanishing(), net, "sigmoid_depth")
    assert finding.step < 20
    assert 0.02 < finding.evidence["factor_a_layer"] < 0.5
    assert finding.evidence["from"] <= finding.evidence["factor_a_layer"]
    assert finding.evidence["factor_a_layer"] <= finding.evidence["to"] <= 0.85
    assert finding.layers[0] == "0.bias"
    assert "shrinks" in finding.symptom


def test_small_weights_show_in_the_biases(watch: Watch) -> None:
    # Weights' gradients are alike: what the way back loses, the way there lost too.
    (finding,) = watch(Vanishing(), "mlp_relu_12", "tiny_init")
    assert finding.layers[0].endswith("bias")


def test_the_factor_is_exact_and_a_nan_does_not_move_it(table: Table) -> None:
    history = History()
    for step in range(8):
        profile = [10.0 ** (i - 12) for i in range(12)]
        if step % 3 == 0:
            profile[step] = math.nan
        history.take(table("grad_rms", profile, step))
    finding = Vanishing()(history)
    assert finding is not None
    assert finding.evidence["factor_a_layer"] == pytest.approx(0.1)
    assert finding.evidence["first_over_last"] == pytest.approx(1e-11)


@pytest.mark.parametrize(
    "profile",
    [
        [1e-9, 1.0, 1.0],  # too few
        [1e-9] + [1.0] * 11,  # one layer is no slope
        [1e-6, 1.0] * 6,  # two kinds of layers
        [0.9**i for i in range(12)],  # grows towards the output, and within the band
    ],
)
def test_silent_when_unsure(table: Table, profile: list[float]) -> None:
    history = History()
    for step in range(8):
        history.take(table("grad_rms", profile, step))
    assert Vanishing()(history) is None
