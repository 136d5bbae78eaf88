from collections.abc import Callable

import pytest

from gradlab.pathologies import Disconnected, Finding, Pathology

Watch = Callable[[Pathology, str, str], list[Finding]]


@pytest.mark.parametrize("net", ["residual_mlp", "cnn", "transformer", "gru"])
def test_what_a_detach_cuts_off_is_named(watch: Watch, net: str) -> None:
    (finding,) = watch(Disconnected(), net, "detached_branch")
    assert finding.step < 20
    assert "never had a gradient" in finding.symptom
    assert "detach()" in finding.causes[0]
    assert finding.evidence["had_one"] == 0


def test_a_layer_frozen_on_the_way_is_said_with_less_confidence(watch: Watch) -> None:
    (finding,) = watch(Disconnected(), "mlp_relu_12", "frozen_layer")
    assert 30 <= finding.step <= 36
    assert finding.layers == ("10.weight", "10.bias")
    assert "has none any more" in finding.symptom
    assert finding.confidence < 0.9
