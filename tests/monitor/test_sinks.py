import errno
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from gradlab import Monitor as AnyMonitor, Snapshot
from gradlab.monitor import Findings
from gradlab.quantities import GradNorm

# One snapshot a step.
Monitor = partial(AnyMonitor, quantities=[GradNorm()])


class Full:
    """A sink on a full disk."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, snapshot: Snapshot) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        self.calls.append("flush")
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.calls.append("close")


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 2)).sum().backward()
        optimizer.step()


def test_a_sink_that_fails_is_reported_once_and_counted() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters())
    seen: list[Snapshot] = []
    monitor = Monitor(model, optimizer, sinks=[Full(), seen.append])
    with pytest.warns(RuntimeWarning, match="OSError: .*No space left") as caught:
        train(model, optimizer)
    assert len(caught) == 1
    assert monitor.lost == 3
    assert len(seen) == 3
    monitor.detach()


def test_leaving_the_monitor_flushes_and_closes_what_can_be() -> None:
    model, sink = nn.Linear(2, 1), Full()
    with (
        pytest.warns(RuntimeWarning, match="No space left"),
        Monitor(model, sinks=[sink, lambda snapshot: None]),
    ):
        pass
    assert sink.calls == ["flush", "close"]


def test_a_closed_sink_is_not_flushed_again() -> None:
    model, sink = nn.Linear(2, 1), Full()
    with pytest.warns(RuntimeWarning, match="No space left"), Monitor(model) as monitor:
        monitor._sinks.add(sink)
    monitor.detach()
    assert sink.calls == ["flush", "close"]


def test_an_interrupt_is_not_a_failure_of_the_sink() -> None:
    def interrupted(snapshot: Snapshot) -> None:
        raise KeyboardInterrupt

    model = nn.Linear(2, 1)
    monitor = Monitor(model, sinks=[interrupted])
    with pytest.raises(KeyboardInterrupt):
        monitor.observe(0, "raw")


@pytest.mark.parametrize("sink", [None, 3, Full])
def test_a_sink_is_a_callable_instance(sink: Callable[[Snapshot], object]) -> None:
    with pytest.raises(TypeError, match="a sink is called with each Snapshot, got"):
        Monitor(nn.Linear(2, 1), sinks=[sink])


def test_findings_and_the_steps_before_a_crash_are_written(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    folder = tmp_path / "run"

    def run() -> None:
        with Monitor(model, optimizer, sinks=[Findings(folder)]):
            train(model, optimizer)
            raise RuntimeError("a bad batch")

    with pytest.raises(RuntimeError, match="a bad batch"):
        run()
    recording = json.loads((folder / "recording.json").read_text())
    assert recording["reason"] == "RuntimeError: a bad batch"
    (kept,) = recording["snapshots"]
    assert kept["steps"] == [0, 1, 2]
    assert not (folder / "findings.jsonl").exists()
