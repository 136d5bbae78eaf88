from collections.abc import Callable

import pytest

from gradlab.pathologies import Finding, Pathology, UpdateTooLarge, UpdateTooSmall

Watch = Callable[[Pathology, str, str], list[Finding]]


@pytest.mark.parametrize("net", ["mlp_relu_4", "transformer", "lstm", "cnn"])
def test_a_learning_rate_300_times_too_large(watch: Watch, net: str) -> None:
    (finding,) = watch(UpdateTooLarge(), net, "learning_rate_x300")
    assert finding.step < 5
    assert finding.evidence["update_ratio"] > 0.2


@pytest.mark.parametrize("net", ["mlp_relu_4", "transformer", "mlp_tanh_8"])
def test_a_learning_rate_that_moves_nothing(watch: Watch, net: str) -> None:
    (finding,) = watch(UpdateTooSmall(), net, "learning_rate_x1e-7")
    assert finding.evidence["update_ratio"] < 1e-6
