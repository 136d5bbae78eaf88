"""What is said of a Lightning run, where, and what is done about it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor

from gradlab.callbacks import GradientMonitor
from gradlab.monitor import SkipStep, Stop
from gradlab.pathologies import NonFinite
from gradlab.tensorboard import read_run

from .test_gradient_monitor import Net, fit, gradlab_dir

AT_ONCE: Any = [NonFinite(patience=1)]


class Overflowing(Net):
    """A net whose loss is infinite from the third step on."""

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss = super().training_step(batch, index)
        return loss * torch.inf if self.global_step >= 2 else loss


def test_a_finding_is_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, Overflowing(), GradientMonitor(pathologies=AT_ONCE))
    folder = gradlab_dir(tmp_path)
    (line, *_) = (Path(folder) / "findings.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["code"], found["step"]) == ("non_finite", 2)
    assert "step 2: " in capsys.readouterr().err
    (event,) = EventAccumulator(folder).Reload().Tensors("gradlab/non_finite")
    (text,) = make_ndarray(event.tensor_proto)
    assert b"step 2: " in text
    recording = json.loads((Path(folder) / "recording.json").read_text())
    assert any(2 in one["steps"] for one in recording["snapshots"])


def test_a_run_that_crashes_leaves_its_last_steps(tmp_path: Path) -> None:
    class Failing(Net):
        def training_step(self, batch: Tensor, index: int) -> Tensor:
            if index == 3:
                raise RuntimeError("out of memory")
            return super().training_step(batch, index)

    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path, Failing(), GradientMonitor(pathologies=True))
    recording = Path(gradlab_dir(tmp_path)) / "recording.json"
    data = json.loads(recording.read_text())
    assert data["reason"] == "RuntimeError: out of memory"
    assert data["snapshots"][0]["steps"] == [0, 1, 2]


def test_nothing_is_written_of_a_healthy_run(tmp_path: Path) -> None:
    fit(tmp_path, Net(), GradientMonitor(pathologies=True))
    (file,) = Path(gradlab_dir(tmp_path)).iterdir()
    assert "tfevents" in file.name


@pytest.mark.parametrize(("dry_run", "steps"), [(True, 6), (False, 3)])
def test_an_action_stops_the_run(tmp_path: Path, dry_run: bool, steps: int) -> None:
    options: Any = {"pathologies": AT_ONCE, "actions": [Stop()], "dry_run": dry_run}
    trainer = fit(tmp_path, Overflowing(), GradientMonitor(**options))
    assert trainer.global_step == steps


@pytest.mark.parametrize("clip", [None, 0.5])
def test_an_action_skips_the_step(tmp_path: Path, clip: float | None) -> None:
    options: Any = {"pathologies": AT_ONCE, "actions": [SkipStep()], "dry_run": False}
    model = Overflowing()
    monitor = GradientMonitor(**options)
    fit(tmp_path, model, monitor, max_steps=3, gradient_clip_val=clip)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not read_run(tmp_path).total[2] < torch.inf
