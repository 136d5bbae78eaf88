from collections.abc import Callable, Sequence

import pytest
import torch

from experiments.bench._planted import FAULTS
from experiments.bench._trace import trace
from experiments.bench._zoo import NETS
from gradlab import Row, Snapshot
from gradlab.monitor import Watchdog
from gradlab.pathologies import Finding, Pathology

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def watch() -> Watch:
    """Trains a network of the zoo with a fault, one pathology looking on."""

    def watch(pathology: Pathology, net: str, fault: str) -> list[Finding]:
        nets, faults = {n.name: n for n in NETS}, {f.name: f for f in FAULTS}
        assert faults[fault].fits(nets[net])
        watchdog = Watchdog([pathology], outputs=[])
        for seen in trace(nets[net], 0, 40, faults[fault]):
            for snapshot in seen.snapshots:
                watchdog(snapshot)
        assert watchdog.failures == 0
        return watchdog.findings

    return watch


@pytest.fixture
def table() -> Table:
    """A snapshot of one quantity of some weights, and of their total."""

    def table(
        quantity: str, numbers: Sequence[float], step: int = 0, total: float = 1.0
    ) -> Snapshot:
        rows = [Row(f"{i}.weight", "parameter", (2, 2)) for i in range(len(numbers))]
        values = torch.tensor([[total], *([n] for n in numbers)], dtype=torch.float64)
        return Snapshot(
            step,
            "applied",
            (Row("total", "total"), *rows),
            (quantity,),
            values,
            torch.ones_like(values, dtype=torch.bool),
        )

    return table
