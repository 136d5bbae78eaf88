from collections.abc import Callable

import pytest

from gradlab.pathologies import Finding, Pathology, Underflow

Watch = Callable[[Pathology, str, str], list[Finding]]


@pytest.mark.parametrize("net", ["mlp_tanh_8", "transformer", "residual_mlp"])
def test_gradients_that_went_through_float16(watch: Watch, net: str) -> None:
    (finding,) = watch(Underflow(), net, "float16_underflow")
    assert finding.step < 20
    assert 0.1 <= finding.evidence["share_of_zeros"] < 1
    assert finding.evidence["rms_of_the_others"] < 32 * 2**-24
    assert "loss scale" in finding.experiment


def test_dead_units_are_not_underflow(watch: Watch) -> None:
    assert watch(Underflow(), "mlp_relu_12", "dead_relu") == []
