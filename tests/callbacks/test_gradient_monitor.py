import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import FSDPStrategy
from pytorch_lightning.utilities import grad_norm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import SGD
from torch.utils.data import DataLoader

from gradlab import Monitor
from gradlab.callbacks import GradientMonitor
from gradlab.quantities import ClipCoefficient, GradNorm, UpdateRatio
from gradlab.tensorboard import History, quantities_in, read_run


class Net(LightningModule):
    """Three layers, one of them idle, one of them frozen; keeps its own norms."""

    def __init__(self, kind: Any = SGD, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.idle = nn.Linear(3, 3)
        self.optimizer = (kind, {"lr": 0.1, **options})
        self.before: list[float] = []
        self.after: list[float] = []

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return self.body(self.frozen(batch)).square().mean()

    def configure_optimizers(self) -> Any:
        kind, options = self.optimizer
        return kind(self.parameters(), **options)

    def total(self) -> float:
        grads = [p.grad.float() for p in self.parameters() if p.grad is not None]
        return get_total_norm(grads).item()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.before.append(self.total())

    def on_train_batch_end(self, *args: Any) -> None:
        self.after.append(self.total())

    def train_dataloader(self) -> DataLoader[Tensor]:
        maker = torch.Generator().manual_seed(1)
        data: Any = torch.randn(24, 3, generator=maker)
        return DataLoader(data, batch_size=4)


def fit(
    folder: Path,
    model: LightningModule,
    *callbacks: Callback,
    resume: Path | None = None,
    **options: Any,
) -> Trainer:
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 6,
            "logger": TensorBoardLogger(folder),
            "callbacks": [*callbacks],
            "log_every_n_steps": 1,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        }
    )
    trainer.fit(model, ckpt_path=resume, weights_only=None if resume is None else False)
    return trainer


def gradlab_dir(folder: Path) -> str:
    (file,) = folder.rglob("gradlab/*tfevents*")
    return str(file.parent)


def run(folder: Path, model: LightningModule, **options: Any) -> History:
    fit(folder, model, GradientMonitor(), **options)
    return read_run(folder)


def test_each_layer_is_logged_at_each_step(tmp_path: Path) -> None:
    model = Net()
    history = run(tmp_path, model)
    assert history.layers == ("body.0", "body.2", "idle")
    assert history.available.all(0).tolist() == [True, True, False]
    assert history.steps.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(history.total, model.before, rtol=1e-6)
    np.testing.assert_allclose(
        history.total, np.linalg.norm(history.values[:, :2], axis=1), rtol=1e-6
    )


def test_means_what_lightnings_own_grad_norm_means(tmp_path: Path) -> None:
    class Logging(Net):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.log_dict(grad_norm(self, norm_type=2))

    fit(tmp_path, Logging(), GradientMonitor(parameters=True))
    (log,) = tmp_path.rglob("version_0/*tfevents*")
    events = EventAccumulator(gradlab_dir(tmp_path)).Reload()
    their_events = EventAccumulator(str(log.parent)).Reload()
    pairs = {
        "grad_norm/total": "grad_2.0_norm_total",
        "grad_norm/body.0/weight": "grad_2.0_norm/body.0.weight",
        "grad_norm/body.0/bias": "grad_2.0_norm/body.0.bias",
        "grad_norm/body.2/weight": "grad_2.0_norm/body.2.weight",
        "grad_norm/body.2/bias": "grad_2.0_norm/body.2.bias",
    }
    tags = set(events.Tags()["scalars"])
    assert {tag for tag in tags if tag.startswith("grad_norm/")} == {
        *pairs,
        "grad_norm/body.0",
        "grad_norm/body.2",
    }
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(
            [event.value for event in events.Scalars(ours)],
            [event.value for event in their_events.Scalars(theirs)],
            rtol=1e-6,
        )


def test_every_n_steps(tmp_path: Path) -> None:
    fit(tmp_path, Net(), GradientMonitor(every_n_steps=4), max_steps=10, max_epochs=-1)
    assert read_run(tmp_path).steps.tolist() == [0, 4, 8]


def test_accumulation_is_read_once_an_optimizer_step(tmp_path: Path) -> None:
    model = Net()
    history = run(tmp_path, model, accumulate_grad_batches=4, max_steps=4, max_epochs=2)
    # 6 batches an epoch: windows of 4 and of the remaining 2.
    assert history.steps.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(history.total, model.before, rtol=1e-6)


def test_the_gradient_is_read_before_clipping(tmp_path: Path) -> None:
    model = Net()
    history = run(tmp_path, model, gradient_clip_val=0.01)
    np.testing.assert_allclose(history.total, model.before, rtol=1e-6)
    assert min(history.total) > 0.02
    np.testing.assert_allclose(model.after, 0.01, rtol=1e-3)


class Pair(LightningModule):
    """Two nets that take turns, as a generator and its critic do."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.one, self.two = nn.Linear(3, 1), nn.Linear(3, 1)
        self.norms: list[float] = []

    def training_step(self, batch: Tensor, index: int) -> None:
        optimizers: Any = self.optimizers()
        for optimizer, net in zip(optimizers, (self.one, self.two), strict=True):
            optimizer.zero_grad()
            self.manual_backward(net(batch).square().mean())
            self.norms.append(nn.utils.clip_grad_norm_(net.parameters(), 0.5).item())
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [SGD(net.parameters(), lr=0.1) for net in (self.one, self.two)]

    train_dataloader = Net.train_dataloader


@pytest.mark.parametrize(
    ("kind", "clip", "stages"),
    [
        (Net, None, ("unscaled",)),
        (Net, 0.5, ("unscaled", "applied")),
        (Pair, None, ("applied",)),
    ],
)
def test_the_stages_that_there_are(
    tmp_path: Path, kind: type[Net | Pair], clip: float | None, stages: tuple[str, ...]
) -> None:
    options = {"max_steps": 2, "gradient_clip_val": clip}
    fit(tmp_path, kind(), GradientMonitor(), **options)
    assert quantities_in(tmp_path)["grad_norm"] == stages


def test_a_module_that_clips_by_itself_is_read_before_it(tmp_path: Path) -> None:
    class Clipping(Net):
        def configure_gradient_clipping(self, *args: Any, **options: Any) -> None:
            nn.utils.clip_grad_norm_(self.parameters(), 0.01)

    model = Clipping()
    history = run(tmp_path, model)
    np.testing.assert_allclose(history.total, model.before, rtol=1e-6)
    np.testing.assert_allclose(read_run(tmp_path, stage="applied").total, 0.01, 1e-3)


def test_several_optimizers_are_read_each_at_its_own_steps(tmp_path: Path) -> None:
    model = Pair()
    fit(tmp_path, model, GradientMonitor(every_n_steps=4), max_steps=8)
    history = read_run(tmp_path)
    assert history.steps.tolist() == [0, 1, 4, 5]
    assert history.layers == ("one", "two")
    there = history.available.tolist()
    assert there == [[True, False], [False, True], [True, False], [False, True]]
    expected = np.minimum(np.array(model.norms)[[0, 1, 4, 5]], 0.5)
    np.testing.assert_allclose(history.total, expected, rtol=1e-5)
    tags = EventAccumulator(gradlab_dir(tmp_path)).Reload().Tags()["scalars"]
    assert {"grad_norm/total/0", "grad_norm/total/1"} < set(tags)
    assert "grad_norm/total" not in tags


def test_a_resumed_run_writes_no_step_twice(tmp_path: Path) -> None:
    def part(steps: int, resume: Path | None = None) -> Trainer:
        logger = TensorBoardLogger(tmp_path, name="", version="")
        options = {"max_steps": steps, "max_epochs": -1, "logger": logger}
        return fit(tmp_path, Net(), GradientMonitor(), resume=resume, **options)

    # An epoch has 6 batches.
    part(6).save_checkpoint(tmp_path / "half.ckpt")
    part(10, resume=tmp_path / "half.ckpt")
    events = EventAccumulator(str(tmp_path / "gradlab")).Reload()
    steps = [event.step for event in events.Scalars("grad_norm/total")]
    assert steps == list(range(10))


@pytest.mark.parametrize("script", ["ddp_run.py", "fsdp_run.py"])
def test_one_rank_of_two_logs_the_whole_gradient(script: str, tmp_path: Path) -> None:
    path = Path(__file__).with_name(script)
    ran = subprocess.run(
        [sys.executable, str(path), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(path.parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.rglob("gradlab/*tfevents*"))) == 1
    expected = json.loads((tmp_path / "norms.json").read_text())
    np.testing.assert_allclose(read_run(tmp_path).total, expected, rtol=1e-6)


def test_every_logger_gets_the_metrics(tmp_path: Path) -> None:
    loggers = [TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv")]
    fit(tmp_path, Net(), GradientMonitor(), logger=loggers)
    (table,) = (tmp_path / "csv").rglob("metrics.csv")
    header, *rows = table.read_text().splitlines()
    assert "grad_norm/body.0" in header
    assert len(rows) == len(read_run(tmp_path / "tb").steps) == 6


def test_two_monitors_of_a_trainer_write_to_folders_of_their_own(
    tmp_path: Path,
) -> None:
    both = GradientMonitor(modules=["body.0"]), GradientMonitor(modules=["body.2"])
    logger = TensorBoardLogger(tmp_path, name="", version="")
    # The second fit goes on in the same folders, as a resumed run does.
    for steps in (3, 6):
        fit(tmp_path, Net(), *both, logger=logger, max_steps=steps)
    first, second = read_run(tmp_path / "gradlab"), read_run(tmp_path / "gradlab_1")
    assert (first.layers, second.layers) == (("body.0",), ("body.2",))
    np.testing.assert_array_equal(first.total, second.total)
    with pytest.raises(ValueError, match="name one of gradlab, gradlab_1"):
        read_run(tmp_path)


def test_a_logger_that_fails_does_not_stop_the_run(tmp_path: Path) -> None:
    class Full(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            raise OSError(28, "No space left on device")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        trainer = fit(tmp_path, Net(), GradientMonitor(), logger=Full(tmp_path))
    assert trainer.global_step == 6
    (warning,) = caught
    assert "No space left on device. Training goes on" in str(warning.message)


def lets_go(monitor: GradientMonitor) -> bool:
    return not any(isinstance(held, Monitor) for held in vars(monitor).values())


def test_the_model_is_let_go_after_the_run(tmp_path: Path) -> None:
    monitor, model = GradientMonitor(parameters=True), Net()
    fit(tmp_path, model, monitor)
    assert lets_go(monitor)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    for twin in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert fit(tmp_path, Net(), twin).global_step == 6


def test_the_model_is_let_go_after_an_exception(tmp_path: Path) -> None:
    class Failing(Net):
        def training_step(self, batch: Tensor, index: int) -> Tensor:
            if index == 2:
                raise RuntimeError("out of memory")
            return super().training_step(batch, index)

    monitor = GradientMonitor()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path, Failing(), monitor)
    assert lets_go(monitor)
    assert read_run(tmp_path).steps.tolist() == [0, 1]


def test_a_watched_model_is_copied_and_pickled(tmp_path: Path) -> None:
    class Copying(Net):
        def on_train_batch_end(self, *args: Any) -> None:
            twin = pickle.loads(pickle.dumps(copy.deepcopy(self.body)))
            for one, other in zip(
                twin.parameters(), self.body.parameters(), strict=True
            ):
                assert torch.equal(one, other)

    fit(tmp_path, Copying(), GradientMonitor(), max_steps=2)


def test_fast_dev_run_logs_nowhere(tmp_path: Path) -> None:
    fit(tmp_path, Net(), GradientMonitor(), fast_dev_run=True, logger=True)
    assert not list(tmp_path.rglob("*tfevents*"))


def test_validation_alone_is_not_watched(tmp_path: Path) -> None:
    monitor = GradientMonitor()
    trainer = Trainer(logger=False, accelerator="cpu", callbacks=[monitor])
    monitor.setup(trainer, Net(), "validate")


def test_a_trainer_without_a_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="remove logger=False"):
        fit(tmp_path, Net(), GradientMonitor(), logger=False)


def test_a_strategy_that_keeps_flat_pieces_is_refused(tmp_path: Path) -> None:
    # FSDP1 needs a GPU: only the strategy object is real.
    trainer: Any = SimpleNamespace(
        loggers=[CSVLogger(tmp_path)], strategy=FSDPStrategy()
    )
    with pytest.raises(MisconfigurationException, match="FSDPStrategy, which"):
        GradientMonitor().setup(trainer, Net(), "fit")


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        GradientMonitor(every_n_steps=0)


def test_a_config_can_name_it() -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Callback, "callback")
    config = parser.parse_object(
        {
            "callback": {
                "class_path": "gradlab.callbacks.GradientMonitor",
                "init_args": {"every_n_steps": 5, "quantities": ["GradNorm"]},
            }
        }
    )
    assert "gradlab.quantities.GradNorm" in parser.dump(config)
    monitor = parser.instantiate_classes(config).callback
    assert isinstance(monitor, GradientMonitor)
    assert monitor.options["every_n_steps"] == 5
    assert monitor.options["quantities"] == [GradNorm()]


@pytest.mark.parametrize("n", [1, 2])
def test_before_and_after_clipping_with_the_coefficient(tmp_path: Path, n: int) -> None:
    quantities = (GradNorm(), ClipCoefficient(), UpdateRatio())
    monitor = GradientMonitor(every_n_steps=n, quantities=quantities)
    fit(tmp_path, Net(), monitor, gradient_clip_val=0.01, accumulate_grad_batches=1)
    before = read_run(tmp_path, stage="unscaled")
    after = read_run(tmp_path, stage="applied")
    coefficients = read_run(tmp_path, "clip_coefficient").total
    np.testing.assert_array_equal(before.steps, after.steps)
    np.testing.assert_allclose(after.total, np.minimum(before.total, 0.01), rtol=1e-3)
    np.testing.assert_allclose(coefficients, after.total / before.total, rtol=1e-5)
    ratios = read_run(tmp_path, "update_ratio")
    np.testing.assert_array_equal(ratios.steps, before.steps)
    assert (ratios.total > 0).all()


def test_updates_are_read_without_gradients_and_hooks_are_gone(tmp_path: Path) -> None:
    model = Net()
    trainer = fit(tmp_path, model, GradientMonitor(quantities=[UpdateRatio()]))
    assert len(read_run(tmp_path, "update_ratio").steps) == 6
    assert not trainer.optimizers[0]._optimizer_step_pre_hooks
