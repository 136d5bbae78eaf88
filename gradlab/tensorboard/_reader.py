"""Reads a quantity's history back from the event files of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import (
    SCALARS,
    TENSORS,
    EventAccumulator,
)
from tensorboard.util.tensor_util import make_ndarray

from ._stage import STAGE


@dataclass(frozen=True, eq=False)
class History:
    """One quantity over a run.

    Attributes:
        quantity: Its name.
        stage: Where the gradient was read, None if the file does not say.
        steps: The steps at which it was read, ascending, `[step]`.
        layers: Names of the layers, in the order of the model.
        values: The numbers, float64 `[step x layer]`, NaN where there is none.
        available: Where there is one, bool `[step x layer]`: tells a number that is
            missing from one that is NaN.
        total: The number of the whole model, `[step]`, NaN where there is none. With
            several optimizers, of the parameters of the one that took the step.
    """

    quantity: str
    stage: str | None
    steps: NDArray[np.int64]
    layers: tuple[str, ...]
    values: NDArray[np.float64]
    available: NDArray[np.bool_]
    total: NDArray[np.float64]

    def __getitem__(self, layer: str) -> NDArray[np.float64]:
        """The numbers of one layer, or of `"total"`, at each of `steps`."""
        if layer in self.layers:
            return self.values[:, self.layers.index(layer)]
        if layer == "total":
            return self.total
        raise KeyError(f"no layer {layer!r}; layers are {', '.join(self.layers)}")


def read_run(log_dir: str | os.PathLike[str], quantity: str = "grad_norm") -> History:
    """Read the history of a quantity from the event files of one run.

    Every number in the files is read, none is sampled away. Where a step was written
    twice, as by a run that was resumed from before its end, the later one counts. A
    record cut off by a crash ends its file: what was written before it is read.

    Args:
        log_dir: The directory of the event files, or one above it.
        quantity: The quantity to read.

    Returns:
        Its history.

    Raises:
        FileNotFoundError: If the directory, or any event file in it, is missing.
        ValueError: If no run below the directory has the quantity, or several have.

    Example:
        >>> from tempfile import mkdtemp
        >>> import gradlab, torch
        >>> from gradlab.tensorboard import EventFileWriter
        >>> model, run = torch.nn.Linear(2, 1), mkdtemp()
        >>> optimizer = torch.optim.SGD(model.parameters())
        >>> with gradlab.Monitor(model, optimizer, sinks=[EventFileWriter(run)]):
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(4, 2)).sum().backward()
        ...         optimizer.step()
        >>> history = read_run(run)
        >>> history.steps, history.layers, history.values.shape
        (array([0, 1, 2]), ('root',), (3, 1))
    """
    where = Path(log_dir)
    if not where.is_dir():
        raise FileNotFoundError(
            f"a run is read from its log directory, got {os.fspath(log_dir)!r}, which "
            f"is {'a file' if where.exists() else 'missing'}"
        )
    folders = sorted({file.parent for file in where.rglob("*tfevents*")})
    if not folders:
        raise FileNotFoundError(
            f"a run has event files (*tfevents*), found none below "
            f"{os.fspath(log_dir)!r}; did the run start, and log to this directory?"
        )
    runs = {folder: _scalars(folder) for folder in folders}
    found = {
        folder: run
        for folder, run in runs.items()
        if any(tag.startswith(f"{quantity}/") for tag in run)
    }
    if not found:
        tags = sorted({tag for run in runs.values() for tag in run})[:8]
        raise ValueError(
            f"a watched run has tags {quantity}/<layer>, found none below "
            f"{os.fspath(log_dir)!r} (some of its tags: {', '.join(tags) or 'none'}); "
            "was gradlab.callbacks.GradientMonitor among the callbacks, or a gradlab."
            "tensorboard.EventFileWriter among the monitor's sinks?"
        )
    if len(found) > 1:
        raise ValueError(
            f"one run is read at a time, found {len(found)} below "
            f"{os.fspath(log_dir)!r}; name one of "
            f"{', '.join(os.fspath(folder.relative_to(where)) for folder in found)}"
        )
    ((_, run),) = found.items()
    return _history(quantity, run)


class _Series(NamedTuple):
    stage: str | None
    numbers: dict[int, float]


def _scalars(folder: Path) -> dict[str, _Series]:
    """The numbers by step of each scalar tag of one directory, the last one written."""
    events = EventAccumulator(os.fspath(folder), {SCALARS: 0, TENSORS: 0}).Reload()
    tags = events.Tags()
    run: dict[str, _Series] = {}
    for tag in tags["scalars"]:
        numbers = {event.step: event.value for event in events.Scalars(tag)}
        run[tag] = _Series(_stage(events, tag), numbers)
    for tag in tags["tensors"]:
        # What TensorFlow and SummaryWriter's new style write for a scalar.
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            numbers = {
                event.step: make_ndarray(event.tensor_proto).item()
                for event in events.Tensors(tag)
            }
            run[tag] = _Series(_stage(events, tag), numbers)
    return run


def _stage(events: EventAccumulator, tag: str) -> str | None:
    """The stage that the description of a tag names."""
    if tag not in events.summary_metadata:
        return None
    text = events.SummaryMetadata(tag).summary_description
    return text.removeprefix(STAGE) if text.startswith(STAGE) else None


def _history(quantity: str, run: dict[str, _Series]) -> History:
    """The table of one quantity; what has a second slash is a parameter."""
    series = {
        tag.removeprefix(f"{quantity}/"): one
        for tag, one in run.items()
        if tag.startswith(f"{quantity}/")
    }
    totals = [one for name, one in series.items() if name.split("/")[0] == "total"]
    layers = {
        name: one for name, one in series.items() if "/" not in name and name != "total"
    }
    stages = {one.stage for one in series.values()}
    steps = sorted(
        {step for one in (*layers.values(), *totals) for step in one.numbers}
    )
    row = {step: i for i, step in enumerate(steps)}
    values = np.full((len(steps), len(layers)), np.nan)
    available = np.zeros(values.shape, dtype=bool)
    for column, one in enumerate(layers.values()):
        where = [row[step] for step in one.numbers]
        values[where, column] = list(one.numbers.values())
        available[where, column] = True
    total = np.full(len(steps), np.nan)
    for one in totals:
        total[[row[step] for step in one.numbers]] = list(one.numbers.values())
    return History(
        quantity=quantity,
        stage=stages.pop() if len(stages) == 1 else None,
        steps=np.array(steps, dtype=np.int64),
        layers=tuple(layers),
        values=values,
        available=available,
        total=total,
    )
