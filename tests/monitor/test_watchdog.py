import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from gradlab import Monitor, Row, Snapshot
from gradlab.monitor import JsonLines, Terminal, Watchdog
from gradlab.monitor._flight_recorder import snapshots_of
from gradlab.pathologies import Finding, History, NonFinite, Pathology
from gradlab.quantities import GradNonFinite, GradNorm, ParamNorm


@dataclass(frozen=True)
class Large(Pathology):
    """Says that the total is above 1."""

    code: ClassVar[str] = "large"
    needs: ClassVar[tuple[str, ...]] = ("q",)
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        level = float(history.last("q", 1)[0, 0])
        if level < 0:
            raise ArithmeticError("below zero")
        if level <= 1:
            return None
        return Finding("large", history.step, "it is large", level=level)


def snapshot(step: int, value: float) -> Snapshot:
    values = torch.tensor([[value]], dtype=torch.float64)
    rows = (Row("total", "total"),)
    there = torch.ones_like(values, dtype=torch.bool)
    return Snapshot(step, "applied", rows, ("q",), values, there)


def said(values: list[float], forget: int = 3) -> list[int]:
    watchdog = Watchdog([Large()], outputs=[], forget=forget)
    for step, value in enumerate(values):
        watchdog(snapshot(step, value))
    return [finding.step for finding in watchdog.findings]


def test_a_thing_is_said_once() -> None:
    assert said([1, 2, 2, 3, 19, 2]) == [1]


def test_and_again_when_it_is_ten_times_worse() -> None:
    assert said([2, 19, 20, 30, 199, 200]) == [0, 2, 5]


def test_but_not_when_it_was_the_worst_already() -> None:
    assert said([2, math.inf, math.inf, 1, math.inf]) == [0, 1]


def test_and_again_when_it_was_gone_and_came_back() -> None:
    assert said([2, 1, 1, 2, 1, 1, 1, 2]) == [0, 7]


def test_nothing_is_raised_into_the_run() -> None:
    def full(finding: Finding) -> None:
        raise OSError(28, "No space left on device")

    heard: list[Finding] = []
    watchdog = Watchdog([Large()], [full, heard.append])

    def run() -> None:
        for step, value in enumerate([2, -1, -1, 30, 400]):
            watchdog(snapshot(step, value))

    with pytest.warns(RuntimeWarning, match="must not stop the run") as caught:
        run()
    assert len(caught) == 2
    assert watchdog.failures == 5
    assert [finding.step for finding in heard] == [0, 3, 4]


def test_says_what_it_does_not_look_for() -> None:
    watchdog = Watchdog([Large(), NonFinite()], outputs=[])
    assert watchdog.skipped == {}
    watchdog(snapshot(0, 0.0))
    assert watchdog.skipped == {
        "non_finite": "needs grad_nonfinite, param_norm, which is not measured"
    }


@pytest.mark.parametrize("wrong", [[Large], [None]])
def test_pathologies_are_instances(wrong: list[object]) -> None:
    with pytest.raises(TypeError, match="pathologies are instances"):
        Watchdog(wrong)


@pytest.mark.parametrize("wrong", [[JsonLines], [3]])
def test_outputs_are_callable_instances(wrong: list[object]) -> None:
    with pytest.raises(TypeError, match="an output is called with each Finding"):
        Watchdog(outputs=wrong)


def test_two_of_one_code_are_refused() -> None:
    with pytest.raises(ValueError, match="a code each"):
        Watchdog([Large(), Large()])


def test_the_terminal_and_the_file_get_the_card(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    path = tmp_path / "deep" / "findings.jsonl"
    watchdog = Watchdog([Large()], [Terminal(console), JsonLines(path)])
    watchdog(snapshot(0, 2.0))
    watchdog(snapshot(1, math.inf))
    assert isinstance(console.file, io.StringIO)
    assert "step 0: it is large  [large, 50% sure]" in console.file.getvalue()
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["step"], first["level"]) == (0, 2.0)
    assert second["level"] == "inf"


def train(steps: int, watchdog: Watchdog | None, bad: int = -1) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    sinks = [] if watchdog is None else [watchdog]
    quantities = [GradNorm(), GradNonFinite(), ParamNorm()]
    with Monitor(model, optimizer, quantities=quantities, sinks=sinks):
        for step in range(steps):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 3)).square().mean()
            (loss * (math.nan if step == bad else 1)).backward()
            optimizer.step()
    return [p.detach() for p in model.parameters()]


def test_watching_changes_nothing() -> None:
    plain, watched = train(30, None), train(30, Watchdog(outputs=[]))
    assert all(map(torch.equal, plain, watched))


def test_nothing_is_written_while_nothing_is_wrong(tmp_path: Path) -> None:
    train(10, Watchdog(outputs=[], recording=tmp_path / "flight.json"))
    assert list(tmp_path.iterdir()) == []


def test_the_last_steps_are_written_when_something_is(tmp_path: Path) -> None:
    path = tmp_path / "flight.json"
    watchdog = Watchdog(outputs=[], recording=path, window=8)
    train(20, watchdog, bad=15)
    assert [(f.code, f.step) for f in watchdog.findings] == [("non_finite", 16)]
    data = json.loads(path.read_text())
    assert data["reason"] == "non_finite"
    assert data["findings"][0]["evidence"]["first_step"] == 15
    (kept,) = snapshots_of(path)
    assert kept["steps"] == list(range(9, 17))
    norms = [row[0] for row in kept["quantities"]["grad_norm"]]
    assert all(map(math.isfinite, norms[:6]))
    assert all(map(math.isnan, norms[6:]))


def test_a_crash_leaves_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "flight.json"

    def crash() -> None:
        with Watchdog(outputs=[], recording=path) as watchdog:
            train(5, watchdog)
            raise KeyError("batch")

    with pytest.raises(KeyError):
        crash()
    assert json.loads(path.read_text())["reason"] == "KeyError: 'batch'"
    assert snapshots_of(path)[0]["steps"] == [0, 1, 2, 3, 4]
