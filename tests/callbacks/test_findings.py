"""What is said of a Lightning run, where, and what is done about it."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor

from gradlab.callbacks import GradientMonitor
from gradlab.monitor import SkipStep, Stop
from gradlab.pathologies import NonFinite
from gradlab.quantities import GradNonFinite, GradNorm, ParamNorm
from gradlab.tensorboard import read_run

from .test_gradient_monitor import Net, fit, gradlab_dir

AT_ONCE: Any = [NonFinite(patience=1)]


class Lost(Callback):
    """Keeps how many snapshots were lost up to the end of each batch."""

    def __init__(self, monitor: GradientMonitor) -> None:
        self.watched = monitor
        self.counts: list[int] = []

    def on_train_batch_end(self, *args: Any) -> None:
        assert self.watched.monitor is not None
        self.counts.append(self.watched.monitor.lost)


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


def test_a_run_with_no_place_for_its_files_is_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[int] = []
    options: Any = {"pathologies": AT_ONCE, "actions": [Stop()], "dry_run": False}
    options["sinks"] = [lambda snapshot: steps.append(snapshot.step)]
    monitor = GradientMonitor(quantities=[GradNonFinite(), ParamNorm()], **options)
    lost = Lost(monitor)
    (tmp_path / "gradlab").touch()
    logger = TensorBoardLogger(tmp_path, name="", version="")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        trainer = fit(tmp_path, Overflowing(), lost, monitor, logger=logger)
    # The event file, and findings.jsonl.
    said, also = (str(one.message) for one in caught)
    assert "an event file is written below a directory" in said
    assert str(tmp_path / "gradlab") in said
    assert "Training goes on; what this sink misses" in said
    assert "Errno" in also
    assert lost.counts == [1, 2, 3]
    assert steps == [0, 1, 2]
    assert "step 2: " in capsys.readouterr().err
    assert trainer.global_step == 3
    assert (tmp_path / "gradlab").is_file()


def test_the_files_of_a_run_are_made_when_there_is_a_place(tmp_path: Path) -> None:
    class Clearing(Net):
        def training_step(self, batch: Tensor, index: int) -> Tensor:
            if index == 2:
                (tmp_path / "gradlab").unlink()
            return super().training_step(batch, index)

    monitor = GradientMonitor(quantities=[GradNorm()])
    lost = Lost(monitor)
    (tmp_path / "gradlab").touch()
    logger = TensorBoardLogger(tmp_path, name="", version="")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        fit(tmp_path, Clearing(), lost, monitor, logger=logger)
    assert len(caught) == 1
    assert lost.counts == [1, 2, 2, 2, 2, 2]
    assert read_run(tmp_path).steps.tolist() == [2, 3, 4, 5]


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
