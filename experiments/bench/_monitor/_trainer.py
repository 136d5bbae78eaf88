"""gradlab beside Lightning's grad_norm as its users write it, in a real Trainer."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import grad_norm
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gradlab.callbacks import GradientMonitor

from ._nets import BATCH, WIDTH, layers, small_tensors
from ._pairs import pairs, quartiles, result
from ._row import Measuring, Part, Row
from ._steps import GRADLAB, NORMS

STEPS, WARM_UP = 16, 4


class Unwatched(LightningModule):
    """The 150 tensors; notes when each step begins."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = layers()
        self.begun: list[float] = []

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """The mean squared error of a batch."""
        self.begun.append(time.perf_counter())
        return functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Optimizer:
        """The same as in the plain loop."""
        return torch.optim.SGD(self.parameters(), 1e-4)


class LogsGradNorm(Unwatched):
    """What Lightning's documentation tells users to write."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log all norms."""
        self.log_dict(grad_norm(self, norm_type=2))


def period(kind: type[Unwatched], *callbacks: Callback) -> float:
    """Seconds from one step to the next, the median of a short run.

    Args:
        kind: What is trained.
        *callbacks: Of the trainer.
    """
    module = kind()
    batches: Any = [tuple(torch.randn(2, BATCH, WIDTH)) for _ in range(STEPS)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=TensorBoardLogger(folder),
            log_every_n_steps=1,
            callbacks=list(callbacks),
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        ).fit(module, DataLoader(batches, batch_size=None))
    begun = module.begun[WARM_UP:]
    return statistics.median(b - a for a, b in pairwise(begun))


def trainer(quick: bool) -> Measuring:
    """What grad norms add to a step in a Trainer, and by how much ours are cheaper.

    Args:
        quick: Whether a rough figure will do.

    Yields:
        The share that is done.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rounds = 3 if quick else 15
    bare, theirs, callbacks, monitors = [], [], [], []
    for turn in range(rounds):
        before = period(Unwatched)
        yield (turn + 0.1) / rounds
        watched = period(LogsGradNorm)
        yield (turn + 0.5) / rounds
        ours = period(Unwatched, GradientMonitor(parameters=True))
        bare.append((before + period(Unwatched)) / 2)
        theirs.append(watched - bare[-1])
        callbacks.append(ours - bare[-1])
        yield (turn + 0.7) / rounds
        found = result(pairs(small_tensors, {NORMS: GRADLAB[NORMS]}, {}, seconds=0.5))
        monitors.append(found[NORMS].added)
        yield (turn + 1) / rounds
    loop = "gradlab.Monitor, in a plain loop"
    callback = "gradlab's GradientMonitor"
    added = {
        "log_dict(grad_norm(self, norm_type=2))": theirs,
        callback: callbacks,
        loop: monitors,
    }
    rows = [_added(name, seconds, bare) for name, seconds in added.items()]
    rows.append(_cheaper(f"cheaper: {loop}", theirs, monitors, 50.0))
    rows.append(_cheaper(f"cheaper: {callback}", theirs, callbacks, None))
    title = (
        "grad norms of the 150 small tensors in a Lightning Trainer with a "
        "TensorBoardLogger, log_every_n_steps=1"
    )
    return Part(title, rows)


def _added(name: str, seconds: Sequence[float], bare: Sequence[float]) -> Row:
    shares = [100 * a / b for a, b in zip(seconds, bare, strict=True)]
    note = (
        f"{1e3 * statistics.median(bare):.2f} + {1e3 * statistics.median(seconds):.2f} "
        f"ms; {len(shares)} rounds"
    )
    return Row(name, statistics.median(shares), "%", quartiles(shares), note=note)


def _cheaper(
    name: str, theirs: Sequence[float], ours: Sequence[float], gate: float | None
) -> Row:
    factors = [a / b for a, b in zip(theirs, ours, strict=True)]
    return Row(
        name,
        statistics.median(factors),
        "x",
        quartiles(factors),
        gate,
        least=True,
        note="what log_dict adds / what this adds",
    )
