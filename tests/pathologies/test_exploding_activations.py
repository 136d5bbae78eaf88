import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gradlab import Monitor, Row, Snapshot
from gradlab.monitor import Watchdog
from gradlab.pathologies import ExplodingActivations, Finding, History, Pathology
from gradlab.quantities import GradRMS

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


def test_a_recurrent_gain_of_three(watch: Watch) -> None:
    (finding,) = watch(ExplodingActivations(), "rnn_relu", "spectral_radius_3")
    assert finding.step == 8
    assert finding.evidence["last_over_first"] > 3**13
    assert finding.layers == ("1.weight", "0.cell.weight_ih_l0")
    assert "what 1 is given" in finding.symptom
    assert "spectral radius" in finding.causes[0]


@pytest.mark.parametrize(
    ("numbers", "after", "said"),
    [
        ([2.0, 1.0, 1e5, 1.0], (), True),
        ([2.0, 1.0, 1e2, 1.0], (), False),
        ([2.0, 1.0, 1e5, 0.0], (), False),  # unknown, not infinite
        ([2.0, 1.0, float("nan"), 1.0], (), False),
        # A normalization comes after it: that bias has no gradient but rounding.
        ([2.0, 1.0, 1e5, 1.0], ("norm.weight",), False),
    ],
)
def test_what_enters_against_what_arrives(
    table: Table, numbers: list[float], after: tuple[str, ...], said: bool
) -> None:
    names = ("a.weight", "a.bias", "b.weight", "b.bias", *after)
    shapes = [(2, 2) if n[0] != "n" and "weight" in n else (2,) for n in names]
    rows = [Row(*pair) for pair in zip(names, ["parameter"] * 9, shapes, strict=False)]
    history = History()
    for step in range(8):
        plain = table("grad_rms", [*numbers, *(1.0 for _ in after)], step)
        history.take(dataclasses.replace(plain, rows=(plain.rows[0], *rows)))
    assert (ExplodingActivations()(history) is not None) == said


def test_an_end_in_a_normalization_is_healthy() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.BatchNorm1d(16)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watchdog = Watchdog([ExplodingActivations()], outputs=[])
    with Monitor(model, optimizer, quantities=[GradRMS()], sinks=[watchdog]):
        for _ in range(12):
            optimizer.zero_grad()
            model(torch.randn(32, 8)).pow(3).sum().backward()
            optimizer.step()
    assert watchdog.findings == []
    assert watchdog.skipped == {}
