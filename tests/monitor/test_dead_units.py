import math

import pytest
import torch
from torch import Tensor, nn

from gradlab import Monitor
from gradlab.monitor._dead_units import DeadUnitLedger
from gradlab.monitor._watched import unit_axis
from gradlab.quantities import DeadUnits


def flags(*active: bool) -> Tensor:
    return torch.tensor(active)


def test_a_unit_is_dead_after_a_window_of_silence() -> None:
    ledger = DeadUnitLedger(window=3)
    for step in range(2):
        ledger.update("fc", flags(True, False), step)
        assert ledger.dead("fc").tolist() == []
    ledger.update("fc", flags(True, False), 2)
    assert ledger.dead("fc").tolist() == [1]
    assert ledger.last_active("fc").tolist() == [2, -1]
    assert ledger.recovered("fc").tolist() == []
    ledger.update("fc", flags(True, True), 3)
    assert ledger.recovered("fc").tolist() == [1]
    assert ledger.dead("fc").tolist() == []
    ledger.update("fc", flags(False, True), 4)
    assert ledger.recovered("fc").tolist() == []
    assert ledger.last_active("fc").tolist() == [3, 4]


def test_a_layer_met_late_is_given_the_whole_window() -> None:
    ledger = DeadUnitLedger(window=2)
    ledger.update("late", flags(False), 50)
    assert ledger.dead("late").tolist() == []
    ledger.update("late", flags(False), 51)
    assert ledger.dead("late").tolist() == [0]


def test_another_number_of_units_starts_anew() -> None:
    ledger = DeadUnitLedger(window=1)
    ledger.update("fc", flags(False, False), 0)
    ledger.update("fc", flags(True), 1)
    assert ledger.last_active("fc").tolist() == [1]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        DeadUnitLedger(window=0)
    ledger = DeadUnitLedger()
    ledger.update("fc", flags(True), 0)
    with pytest.raises(KeyError, match="no units of 'x'; seen: fc"):
        ledger.dead("x")


def test_a_relu_killed_by_its_bias_and_the_layer_before_it() -> None:
    torch.manual_seed(0)
    first = nn.Linear(3, 4)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        first.bias[0] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen: list[list[float]] = []
    with Monitor(
        model,
        optimizer,
        quantities=[DeadUnits(window=3)],
        sinks=[lambda s: seen.append(s.column("dead_units").tolist())],
    ) as monitor:
        for step in range(6):
            if step == 4:
                with torch.no_grad():
                    first.bias[0] = 100.0
            optimizer.zero_grad()
            model(torch.randn(64, 3)).square().sum().backward()
            optimizer.step()
            ledger = monitor.dead_units
            assert ledger is not None
            for row in ("0", "1"):
                assert ledger.dead(row).tolist() == ([0] if step in (2, 3) else [])
                assert ledger.recovered(row).tolist() == ([0] if step == 4 else [])
    assert seen == [[0.25, 0.25, 0.0]] * 4 + [[0.0, 0.0, 0.0]] * 2


def test_activity_of_microbatches_is_taken_together() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen: list[float] = []
    quantities = [DeadUnits()]
    with Monitor(
        model,
        optimizer,
        quantities=quantities,
        sinks=[lambda s: seen.append(s["dead_units", "1"])],
    ):
        for batches in ([[1.0, -1.0]], [[1.0, -1.0], [-1.0, 1.0]]):
            for batch in batches:
                model(torch.tensor([batch])).sum().backward()
            optimizer.step()
    assert seen == [0.5, 0.0]


def test_channels_of_a_convolution_and_of_the_relu_after_it() -> None:
    model = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(torch.tensor([0.0, -100.0, 0.0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen: list[list[float]] = []
    with Monitor(
        model,
        optimizer,
        quantities=[DeadUnits()],
        sinks=[lambda s: seen.append(s.column("dead_units").tolist())],
    ):
        model(torch.rand(4, 1, 6)).square().sum().backward()
        optimizer.step()
    assert seen[0] == pytest.approx([1 / 3, 1 / 3, 0.0])


def test_a_large_output_is_looked_at_closely_once_a_sample_has_a_zero() -> None:
    torch.manual_seed(0)
    first = nn.Linear(3, 400)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(400, 40))
    with torch.no_grad():
        first.bias[:100] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen: list[list[float]] = []
    with Monitor(
        model,
        optimizer,
        quantities=[DeadUnits(window=2)],
        sinks=[lambda s: seen.append(s.column("dead_units").tolist())],
    ) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(200, 3)).square().sum().backward()
            optimizer.step()
        assert monitor.dead_units is not None
        assert monitor.dead_units.dead("1").tolist() == list(range(100))
    assert math.isnan(seen[0][1])
    assert [row[2] for row in seen] == [0.0] * 3
    assert seen[1:] == [[0.25, 0.25, 0.0]] * 2


@pytest.mark.parametrize(
    ("module", "shape", "axis"),
    [
        (nn.Linear(2, 2), (4, 5, 2), -1),
        (nn.LayerNorm(2), (4, 5, 6, 2), -1),
        (nn.Conv2d(1, 2, 1), (4, 2, 5, 5), 1),
        (nn.Conv2d(1, 2, 1), (2, 5, 5), 0),
        (nn.ConvTranspose1d(1, 2, 1), (4, 2, 5), 1),
        (nn.BatchNorm1d(2), (4, 2, 5), 1),
        (nn.ReLU(), (4, 5, 2), -1),
        (nn.ReLU(), (4, 2, 5, 5), 1),
        (nn.ReLU(), (), None),
    ],
)
def test_where_the_units_are(
    module: nn.Module, shape: tuple[int, ...], axis: int | None
) -> None:
    assert unit_axis(module, torch.empty(shape)) == axis
    if isinstance(module, nn.ReLU) and shape:
        assert unit_axis(module, torch.empty(shape), 0) == 0
