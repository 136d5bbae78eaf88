import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from gradlab import Monitor
from gradlab.monitor import Action, Run, SaveCheckpoint, SkipStep, Stop, Warn
from gradlab.pathologies import Finding, History, NonFinite, Pathology


@dataclass(frozen=True)
class Large(Pathology):
    """Says that the gradient is large, at each step where it is."""

    code: ClassVar[str] = "large"
    needs: ClassVar[tuple[str, ...]] = ("grad_norm",)
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        norm = float(history["grad_norm"][-1, history.total()])
        # Not a number is larger than anything.
        if norm < 100:
            return None
        return Finding("large", history.step, f"a norm of {norm:.3g}", level=norm)


@dataclass(frozen=True)
class Moves(Pathology):
    """Says that parameters have moved."""

    code: ClassVar[str] = "moves"
    needs: ClassVar[tuple[str, ...]] = ("update_ratio",)
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        return Finding("moves", history.step, "they move")


@dataclass(frozen=True)
class Broken(Action):
    """Fails."""

    @property
    def intent(self) -> str:
        return "break"

    def __call__(self, run: Run, finding: Finding) -> str | None:
        raise OSError("no room")


def run(
    actions: Sequence[Action], dry_run: bool = False, scale: float = 1e4
) -> tuple[Monitor, nn.Module, list[list[float]]]:
    """Three steps, the second one with a gradient that is `scale` times as large."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    weights = []
    looked_for = [Large(), Moves()]
    with Monitor(
        model, optimizer, pathologies=looked_for, actions=actions, dry_run=dry_run
    ) as monitor:
        for factor in (1.0, scale, 1.0):
            optimizer.zero_grad()
            (model(torch.ones(1, 2)) * factor).sum().backward()
            optimizer.step()
            assert model.weight.grad is not None
            weights.append(model.weight.detach().flatten().tolist())
    return monitor, model, weights


def test_a_dry_run_says_what_it_would_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gradlab"):
        monitor, _, weights = run(
            [SkipStep(codes=["large"]), Stop(codes=["large"])], True
        )
    assert [str(line) for line in monitor.audit] == [
        "step 1: large → skip the step, not done: a dry run; say dry_run=False",
        "step 1: large → stop the run, not done: a dry run; say dry_run=False",
    ]
    assert caplog.messages == [str(line) for line in monitor.audit]
    assert not monitor.should_stop
    assert weights[1] != weights[0]


@pytest.mark.parametrize("scale", [1e4, math.nan])
def test_a_skipped_step_moves_nothing(scale: float) -> None:
    monitor, _, weights = run([SkipStep(codes=["large"])], scale=scale)
    assert weights[1] == weights[0]
    assert weights[2] != weights[1]
    assert all(map(math.isfinite, weights[2]))
    assert [line.done for line in monitor.audit] == [True]


def test_a_step_that_was_taken_is_not_skipped() -> None:
    monitor, _, weights = run([SkipStep(codes=["moves"])])
    assert weights[1] != weights[0]
    assert {(line.done, line.why.split(",")[0]) for line in monitor.audit} == {
        (False, "the step was taken already")
    }


def test_a_closure_of_a_skipped_step() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).sum() * 1e4
        loss.backward()
        return loss.item()

    before = model.weight.clone()
    actions = [SkipStep(codes=["large"])]
    with Monitor(
        model, optimizer, pathologies=[Large()], actions=actions, dry_run=False
    ):
        optimizer.step(closure)
    assert torch.equal(model.weight, before)
    assert model.weight.grad is not None


def test_stop() -> None:
    monitor, *_ = run([Stop(codes=["large"])])
    assert monitor.should_stop


def test_a_checkpoint_is_from_before_the_step(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    _, model, weights = run([SaveCheckpoint(folder, codes=["large"])])
    (path,) = folder.iterdir()
    assert path.name == "step00000001-large.pt"
    saved = torch.load(path, weights_only=True)
    assert saved["model"]["weight"].flatten().tolist() == weights[0]
    assert saved["step"] == 1
    assert saved["finding"]["code"] == "large"
    model.load_state_dict(saved["model"])
    torch.optim.SGD(model.parameters(), 0.01).load_state_dict(saved["optimizer"])


def test_warn() -> None:
    with pytest.warns(RuntimeWarning, match="a norm of"):
        run([Warn(codes=["large"])])


def test_an_action_that_fails_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    monitor, _, weights = run([Broken(codes=["large"]), Stop(codes=["large"])])
    assert str(monitor.audit[0]) == "step 1: large → break, not done: OSError: no room"
    assert monitor.should_stop
    assert len(weights) == 3


def test_bad_actions_are_refused() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="is it a class that was not called"):
        Monitor(model, pathologies=[Large()], actions=[Stop])
    with pytest.raises(ValueError, match=r"got codes=\['lrage'\]; there are large"):
        Monitor(model, pathologies=[Large()], actions=[Stop(codes=["lrage"])])
    with pytest.raises(ValueError, match="got no pathologies"):
        Monitor(model, actions=[Stop()])


def test_findings_go_to_sinks_that_take_them() -> None:
    class Sink:
        def __init__(self) -> None:
            self.found: list[str] = []

        def __call__(self, snapshot: object) -> None:
            pass

        def finding(self, finding: Finding) -> None:
            self.found.append(finding.code)

    model, sink = nn.Linear(2, 1), Sink()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, pathologies=[Large()], sinks=[sink]):
        (model(torch.ones(1, 2)) * 1e4).sum().backward()
        optimizer.step()
    assert sink.found == ["large"]


def test_every_bad_step_is_skipped_and_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    actions = [SkipStep(), Stop()]
    with Monitor(
        model,
        optimizer,
        pathologies=[NonFinite(patience=1)],
        actions=actions,
        dry_run=False,
    ) as monitor:
        for step in range(9):
            optimizer.zero_grad()
            batch = torch.ones(3, 2)
            if step in (3, 4, 7):
                batch[1, 0] = math.nan
            model(batch).sum().backward()
            optimizer.step()
    assert bool(model.weight.isfinite().all())
    audit = [(line.step, line.action) for line in monitor.audit if line.done]
    assert audit == [
        (3, "skip the step"),
        (3, "stop the run"),
        (4, "skip the step"),
        (7, "skip the step"),
    ]
    assert capsys.readouterr().err.count("[non_finite") == 1


def test_codes_are_a_list() -> None:
    with pytest.raises(TypeError, match="codes is a list, got 'large'"):
        Stop(codes="large")
