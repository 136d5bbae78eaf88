from collections.abc import Callable

import pytest

from gradlab.pathologies import Finding, Pathology, SaturatedUnits

Watch = Callable[[Pathology, str, str], list[Finding]]


@pytest.mark.parametrize("net", ["mlp_tanh_8", "mlp_tanh_6_no_bias"])
def test_inputs_a_hundred_times_too_large_saturate(watch: Watch, net: str) -> None:
    (finding,) = watch(SaturatedUnits(), net, "saturated_tanh")
    assert finding.layers[0] == "1"
    assert finding.evidence["saturated"] > 0.9
    assert "inputs" in finding.causes[0]
