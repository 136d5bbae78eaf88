"""The ways of watching that are compared. Each logs every tensor at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import grad_norm
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from gradlab import Monitor
from gradlab.tensorboard import EventFileWriter
from gradlab.tensorboard._writer import Scalars

from ._nets import Training

Watch = Callable[[Training, Path], AbstractContextManager[object]]
"""Watches from its beginning to its end and writes into the folder."""

BINS = 64


def watch_gradlab(scalars: Scalars = "off", **options: Any) -> Watch:
    """Watch with `gradlab.Monitor`, into an event file.

    Args:
        scalars: What standard scalars are written beside the tensor events.
        **options: Of the monitor.
    """
    return partial(_gradlab, scalars, options)


@contextmanager
def _gradlab(
    scalars: Scalars, options: dict[str, Any], training: Training, folder: Path
) -> Iterator[None]:
    sink = EventFileWriter(folder, parameters=True, scalars=scalars)
    with Monitor(training.model, training.optimizer, sinks=[sink], **options):
        yield


@contextmanager
def lightning_norms(training: Training, folder: Path) -> Iterator[None]:
    """Lightning's `grad_norm` and logger without a Trainer and its `log_dict`.

    Args:
        training: What is watched.
        folder: Where to.
    """
    logger, steps = TensorBoardLogger(folder), count()

    def log(*_: Any) -> None:
        norms = grad_norm(training.model, norm_type=2)
        metrics = {name: float(norm) for name, norm in norms.items()}
        logger.log_metrics(metrics, next(steps))

    hook = training.optimizer.register_step_pre_hook(log)
    yield
    hook.remove()
    logger.experiment.close()


class HistogramHook:
    """A hook of one parameter, as wandb.watch has it: 64 bins of each gradient.

    Args:
        writer: Where to.
        name: Of the parameter.
    """

    def __init__(self, writer: SummaryWriter, name: str) -> None:
        self._writer = writer
        self._name = name
        self._steps = count()

    def __call__(self, grad: Tensor) -> None:
        """Log the histogram of a gradient.

        Args:
            grad: The gradient.
        """
        flat = grad.detach().reshape(-1)
        flat = flat[flat.isfinite()]
        if not flat.numel():
            return
        low, high = flat.min().item(), flat.max().item()
        counts = torch.histc(flat, BINS, low, high).tolist()
        edges = torch.linspace(low, high, BINS + 1).tolist()
        self._writer.add_histogram_raw(
            self._name,
            min=low,
            max=high,
            num=flat.numel(),
            sum=flat.sum().item(),
            sum_squares=flat.dot(flat).item(),
            bucket_limits=edges[1:],
            bucket_counts=counts,
            global_step=next(self._steps),
        )


@contextmanager
def histograms(training: Training, folder: Path) -> Iterator[None]:
    """A histogram of each gradient by a hook of each parameter, as in wandb.watch.

    Args:
        training: What is watched.
        folder: Where to.
    """
    with SummaryWriter(folder) as writer:
        hooks = [
            parameter.register_hook(HistogramHook(writer, name))
            for name, parameter in training.model.named_parameters()
        ]
        yield
        for hook in hooks:
            hook.remove()
