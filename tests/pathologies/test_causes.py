"""A consequence is not said while its cause is; the same thing is said once a step."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from experiments.bench._planted import FAULTS
from experiments.bench._trace import trace
from experiments.bench._zoo import TUNING
from gradlab import Monitor, Row, Snapshot
from gradlab.monitor import Watchdog
from gradlab.pathologies import Finding, History, Pathology, Vanishing, pathologies
from gradlab.quantities import GradRMS, OutputGradRMS


@dataclass(frozen=True)
class Ill(Pathology):
    code: ClassVar[str] = "ill"
    needs: ClassVar[tuple[str, ...]] = ("a",)
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        bad = history.last(self.needs[0], 1)[0, 0] > 0
        return Finding(self.code, history.step, "it is") if bad else None


@dataclass(frozen=True)
class Fever(Ill):
    code: ClassVar[str] = "fever"
    needs: ClassVar[tuple[str, ...]] = ("b",)
    follows: ClassVar[tuple[str, ...]] = ("ill",)


def snapshot(step: int, name: str, value: float, total: str = "total") -> Snapshot:
    values = torch.tensor([[value]], dtype=torch.float64)
    there = torch.ones_like(values, dtype=torch.bool)
    rows = (Row(total, "total"),)
    return Snapshot(step, "applied", rows, (name,), values, there)


def said(steps: list[tuple[float, float]], totals: tuple[str, str]) -> list[str]:
    watchdog = Watchdog([Ill(), Fever()], outputs=[], forget=2)
    for step, (a, b) in enumerate(steps):
        watchdog(snapshot(step, "a", a, totals[0]))
        watchdog(snapshot(step, "b", b, totals[1]))
    return [f"{finding.code} {finding.step}" for finding in watchdog.findings]


def test_a_consequence_is_no_news() -> None:
    same = ("total", "total")
    assert said([(1, 1), (1, 1)], same) == ["ill 0"]
    assert said([(0, 1), (1, 1)], same) == ["fever 0", "ill 1"]
    # Two readings after the cause is gone it stands for itself.
    assert said([(1, 1), (0, 1), (0, 1), (0, 1)], same) == ["ill 0", "fever 2"]


def test_another_optimizer_is_another_patient() -> None:
    assert said([(1, 1)], ("total/0", "total/1")) == ["ill 0", "fever 0"]


def test_codes_that_are_followed_exist() -> None:
    codes = {pathology.code for pathology in pathologies}
    for pathology in pathologies:
        assert codes.issuperset(pathology.follows)
        assert pathology.code not in pathology.follows


def deep(sigmoids: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    act = nn.Sigmoid if sigmoids else nn.Tanh
    layers = [layer for _ in range(8) for layer in (nn.Linear(16, 16), act())]
    model = nn.Sequential(*layers)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, 1.0 if sigmoids else 5 / 3)
    return model


def findings(model: nn.Module, *of_parameters: GradRMS) -> list[Finding]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watchdog = Watchdog([Vanishing()], outputs=[])
    quantities = [*of_parameters, OutputGradRMS()]
    with Monitor(model, optimizer, quantities=quantities, sinks=[watchdog]):
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.randn(16, 16)).square().mean().backward()
            optimizer.step()
    assert watchdog.skipped == {}
    return watchdog.findings


def test_vanishing_is_seen_in_the_outputs_alone() -> None:
    (finding,) = findings(deep())
    assert finding.layers[0] == "0"
    assert finding.evidence["factor_a_layer"] < 0.6
    assert math.isfinite(finding.evidence["factor_at_the_start"])
    assert findings(deep(sigmoids=False)) == []


def test_and_said_once_where_parameters_show_it_too() -> None:
    (finding,) = findings(deep(), GradRMS())
    assert finding.layers[0].startswith("0.")


def test_dead_units_are_the_cause_of_small_updates() -> None:
    net = next(n for n in TUNING if n.name == "mlp_relu_12")
    fault = next(f for f in FAULTS if f.name == "dead_relu")
    watchdog = Watchdog(outputs=[])
    for seen in trace(net, 0, 32, fault):
        for one in seen.snapshots:
            watchdog(one)
    assert [finding.code for finding in watchdog.findings] == ["dead_units"]
