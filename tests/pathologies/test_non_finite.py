from collections.abc import Callable

import pytest
import torch
from torch import nn

from gradlab import Monitor
from gradlab.monitor import Watchdog
from gradlab.pathologies import Finding, NonFinite, Pathology
from gradlab.quantities import GradNonFinite, ParamNorm

Watch = Callable[[Pathology, str, str], list[Finding]]


@pytest.mark.parametrize("net", ["residual_mlp", "mlp_relu_4", "transformer"])
def test_log_of_zero_comes_from_the_loss(watch: Watch, net: str) -> None:
    (finding,) = watch(NonFinite(), net, "log_of_zero")
    assert finding.step == 21
    assert finding.evidence["first_step"] == 20
    assert "the last layer" in finding.symptom
    assert "the loss" in finding.causes[0]


def test_a_root_at_zero_is_named_by_its_layer(watch: Watch) -> None:
    (finding,) = watch(NonFinite(), "residual_mlp", "bad_root")
    assert finding.evidence["first_step"] == 20
    assert finding.layers[0].startswith("3.inner.3.")
    assert "3.inner.3 is the first on the way back" in finding.symptom
    assert 0 < finding.evidence["tensors_hit"] < finding.evidence["tensors"]


def test_parameters_that_broke_first_are_blamed(watch: Watch) -> None:
    (finding,) = watch(NonFinite(), "mlp_relu_10_sgd", "learning_rate_x300")
    assert finding.step < 8


@pytest.mark.parametrize(("bad", "said"), [(3, 0), (12, 1)])
def test_skipped_steps_of_a_loss_scale_are_not_said(bad: int, said: int) -> None:
    model = nn.Linear(2, 1)
    watchdog = Watchdog([NonFinite()], outputs=[])
    quantities = [GradNonFinite(), ParamNorm()]
    monitor = Monitor(model, quantities=quantities, sinks=[watchdog])
    for step in range(20):
        for p in model.parameters():
            p.grad = torch.full_like(p, torch.inf if step < bad else 0.1)
        monitor.observe(step, "applied")
    assert len(watchdog.findings) == said
    if said:
        assert watchdog.findings[0].step == 7
        assert watchdog.findings[0].confidence < 0.9
