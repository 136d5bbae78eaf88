"""One run of a setting, watched or not, with an independent look at its gradients."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from gradlab import Monitor, Snapshot, quantities
from gradlab.monitor import JsonLines, Watchdog
from gradlab.tensorboard import EventFileWriter

from ._retained import Retained

STEPS = 200


@dataclass(frozen=True)
class Setting:
    """A way to train, with everything that a watcher could get wrong in it.

    Attributes:
        name: Its row in the matrix.
        loop: Trains the model of a run, and says where a reading is due.
        model: Makes the model that is watched.
        optimizers: Makes the optimizers that are watched.
        forward: What is called in its stead, made after watching began.
        scale: The loss scale of a GradScaler that the run has.
        tells: Whether the monitor is handed that scaler.
        every: Every how many steps the monitor reads.
        ranks: How many processes there are.
        says: What watching warns of.
        numbers: Whether the activations are held against retained gradients.
    """

    name: str
    loop: Callable[[Run], None]
    model: Callable[[], nn.Module]
    optimizers: Callable[[nn.Module], list[Optimizer]]
    forward: Callable[[nn.Module], nn.Module] | None = None
    scale: float | None = None
    tells: bool = True
    every: int = 1
    ranks: int = 1
    says: str | None = None
    numbers: bool = True


@dataclass(frozen=True)
class Reading:
    """What an independent look saw where the monitor has to read.

    Attributes:
        stage: What the setting says of the gradient there.
        total: Its norm over all parameters of the optimizer.
        activations: Gradient and output rms of modules, by name; None if not looked at.
    """

    stage: str
    total: float
    activations: dict[str, tuple[float, float]] | None


class Run:
    """A model in training.

    Args:
        setting: How it is trained.
        steps: How many batches there are.
        retain: Whether to keep outputs and their gradients, to hold readings against.
        parts: The model, optimizers and scaler, if they are there already.
    """

    def __init__(
        self,
        setting: Setting,
        steps: int,
        retain: bool = False,
        parts: tuple[nn.Module, list[Optimizer], GradScaler | None] | None = None,
    ) -> None:
        seed()
        self.setting = setting
        self.steps = steps
        self.model, self.optimizers, self.scaler = parts or build(setting)
        self.readings: list[Reading] = []
        self.losses: list[Tensor] = []
        self.snapshots: list[Snapshot] = []
        self.monitor: Monitor | None = None
        self.retained = Retained(self.model) if retain else None
        self._folder: Path | None = None
        self._stepped = 0

    def watch(self, folder: Path, step: int = 0) -> None:
        """Attach a monitor that measures everything and hands it to everything."""
        self._folder = folder
        dog = Watchdog(
            outputs=[JsonLines(folder / "findings.jsonl")],
            recording=folder / "recording.json",
        )
        self.monitor = Monitor(
            self.model,
            quantities=quantities.quantities,
            activations=True,
            every_n_steps=self.setting.every,
            scaler=self.scaler if self.setting.tells else None,
            sinks=[
                self.snapshots.append,
                EventFileWriter(folder, parameters=True, scalars="off"),
                dog,
            ],
        )
        self.monitor.step = step
        for optimizer in self.optimizers:
            self.monitor.attach(optimizer)

    def train(self) -> None:
        self.wrap()
        self.setting.loop(self)

    def wrap(self) -> None:
        """Make what is called in the model's stead."""
        made = self.setting.forward
        self.forward: Any = self.model if made is None else made(self.model)

    @property
    def optimizer(self) -> Optimizer:
        return self.optimizers[0]

    def batches(self, steps: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """Always the same ones, another one on each rank."""
        rank = torch.distributed.get_rank() if self.setting.ranks > 1 else 0
        maker = torch.Generator().manual_seed(7 + rank)
        data = torch.randn(self.steps, 4, 3, generator=maker)
        yield from data[start : self.steps if steps is None else start + steps]

    def loss(self, batch: Tensor) -> Tensor:
        """What the forward, wrapped as the setting says, makes of a batch."""
        output: Any = self.forward(batch)
        if isinstance(output, dict):
            output = output["prediction"]
        loss = (output.flatten(1).mean(-1) - batch.sum(-1).tanh()).square().mean()
        self.losses.append(loss.detach())
        return loss

    def expect(
        self,
        optimizer: Optimizer | None = None,
        stage: str = "applied",
        scale: float = 1.0,
        total: Tensor | None = None,
    ) -> None:
        """A reading is due here: say what it should be.

        Args:
            optimizer: Whose gradients.
            stage: Where they are.
            scale: What the gradients are still multiplied by.
            total: Their norm, if it is known already.
        """
        self._stepped += stage == "applied"
        if (self._stepped - 1) % self.setting.every:
            self.forget()
            return
        if total is None:
            parameters = (optimizer or self.optimizer).param_groups
            total = norm(p.grad for group in parameters for p in group["params"])
        activations = None
        if self.retained is not None and stage == "applied":
            factor = 1.0 if self.scaler is None else self.scaler.get_scale()
            activations = self.retained.take(factor)
        self.readings.append(Reading(stage, float(total) / scale, activations))

    def forget(self) -> None:
        """No reading is due of what happened so far."""
        if self.retained is not None:
            self.retained.take()

    def before_clipping(self) -> None:
        """Read here too, where the setting clips."""
        if self.monitor is not None:
            self.monitor.before_clipping()

    def restart(self) -> None:
        """End here, and go on as another process would from a checkpoint."""
        file = io.BytesIO()
        state = [self.model.state_dict(), *(o.state_dict() for o in self.optimizers)]
        step = None if self.monitor is None else self.monitor.step
        torch.save((state, step), file)
        if self.monitor is not None:
            self.monitor.__exit__(None, None, None)
        file.seek(0)
        (of_model, *others), step = torch.load(file)
        self.model, self.optimizers, self.scaler = build(self.setting)
        self.model.load_state_dict(of_model)
        for optimizer, of_optimizer in zip(self.optimizers, others, strict=True):
            optimizer.load_state_dict(of_optimizer)
        if self.retained is not None:
            self.retained = Retained(self.model)
        if self._folder is not None:
            self.watch(self._folder, step)
        self.wrap()

    def end(self) -> None:
        """Let go of the model."""
        if self.retained is not None:
            self.retained.remove()
        if self.monitor is not None:
            self.monitor.__exit__(None, None, None)

    def state(self) -> dict[str, Any]:
        """Everything that watching must not change."""
        return {
            "weights": self.model.state_dict(),
            "gradients": [p.grad for p in self.model.parameters()],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler and self.scaler.state_dict(),
            "losses": self.losses,
            "random numbers": (torch.get_rng_state(), random.getstate(), _numpy()),
        }

    def twins(self) -> dict[str, Run | Exception]:
        """Copies of the model and what trains it, or why there can be none."""
        made: dict[str, Run | Exception] = {}
        for name, twin_of in (("deepcopy", copy.deepcopy), ("torch.save", saved)):
            try:
                parts = twin_of((self.model, self.optimizers, self.scaler))
            except Exception as error:
                made[name] = error
            else:
                made[name] = Run(self.setting, 4, parts=parts)
        return made


def build(
    setting: Setting,
) -> tuple[nn.Module, list[Optimizer], GradScaler | None]:
    """A fresh model and what trains it."""
    model = setting.model()
    scaler = None
    if setting.scale is not None:
        scaler = GradScaler("cpu", setting.scale, growth_interval=50)
    return model, setting.optimizers(model), scaler


def saved(thing: Any) -> Any:
    """The same from a file."""
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def seed() -> None:
    """The same random numbers in every run."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def norm(grads: Iterable[Tensor | None]) -> Tensor:
    """The total norm as torch has it, where it can be asked."""
    there = [g.to_dense() if g.is_sparse else g for g in grads if g is not None]
    total: Any = get_total_norm(there)
    return total.full_tensor() if hasattr(total, "full_tensor") else total


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """A run that lets go of its model whatever happens."""
    try:
        yield run
    finally:
        run.end()


def _numpy() -> tuple[Any, ...]:
    return tuple(np.random.get_state(legacy=True))
