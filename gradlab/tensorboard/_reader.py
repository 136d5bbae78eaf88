"""Reads a quantity's history back from the event files of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .._snapshot import Row, Stage
from . import _table
from ._history import History
from ._run import Entry, Run, Series, load


def read_run(
    log_dir: str | os.PathLike[str],
    quantity: str = "grad_norm",
    stage: Stage | None = None,
) -> History:
    """Read the history of a quantity from the event files of one run.

    The tables that `EventFileWriter` writes are read; at steps that have none, as in
    runs that a Lightning logger wrote, the scalars. Every number is read, none is
    sampled away. Where a step was written twice, as by a run that was resumed from
    before its end, the later one counts. A record cut off by a crash ends its file:
    what was written before it is read.

    Args:
        log_dir: The directory of the event files, or one above it.
        quantity: The quantity to read.
        stage: Where the gradient was read; None for the stage that was written first.

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
    runs = _runs(where)
    chosen = {folder: run.select(quantity, stage) for folder, run in runs.items()}
    found = {folder: one for folder, one in chosen.items() if one[1] or one[2]}
    if not found:
        raise ValueError(_not_found(where, runs.values(), quantity, stage))
    if len(found) > 1:
        raise ValueError(
            f"one run is read at a time, found {len(found)} below "
            f"{os.fspath(log_dir)!r}; name one of "
            f"{', '.join(os.fspath(folder.relative_to(where)) for folder in found)}"
        )
    ((at, entries, series),) = found.values()
    return _history(quantity, at, entries, series)


def quantities_in(log_dir: str | os.PathLike[str]) -> dict[str, tuple[str | None, ...]]:
    """The quantities that `read_run` finds, and at which stages.

    Args:
        log_dir: The directory of the event files, or one above it.

    Returns:
        The stages of each quantity, the first written first; None where the file does
        not say.

    Raises:
        FileNotFoundError: If the directory, or any event file in it, is missing.
    """
    return {name: tuple(at) for name, at in _all(_runs(Path(log_dir)).values()).items()}


def _runs(where: Path) -> dict[Path, Run]:
    """Each directory with event files, at or below this one."""
    if not where.is_dir():
        raise FileNotFoundError(
            f"a run is read from its log directory, got {os.fspath(where)!r}, which "
            f"is {'a file' if where.exists() else 'missing'}"
        )
    folders = sorted({file.parent for file in where.rglob("*tfevents*")})
    if not folders:
        raise FileNotFoundError(
            f"a run has event files (*tfevents*), found none below "
            f"{os.fspath(where)!r}; did the run start, and log to this directory?"
        )
    return {folder: load(folder) for folder in folders}


def _all(runs: Iterable[Run]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for run in runs:
        for name, stages in run.quantities().items():
            known = found.setdefault(name, [])
            known.extend(stage for stage in stages if stage not in known)
    return found


def _not_found(
    where: Path, runs: Iterable[Run], quantity: str, stage: str | None
) -> str:
    runs = list(runs)
    held = [
        f"{name} ({', '.join(map(str, stages))})" for name, stages in _all(runs).items()
    ]
    if held:
        at = "" if stage is None else f" at the stage {stage!r}"
        return (
            f"a history is of what was written below {os.fspath(where)!r}: "
            f"{', '.join(held)}; got quantity={quantity!r}{at}"
        )
    tags = sorted({tag for run in runs for tag in run.scalars})[:8]
    return (
        f"a watched run has tags {quantity}/<layer>, found none below "
        f"{os.fspath(where)!r} (some of its tags: {', '.join(tags) or 'none'}); "
        "was gradlab.callbacks.GradientMonitor among the callbacks, or a gradlab."
        "tensorboard.EventFileWriter among the monitor's sinks?"
    )


def _history(
    quantity: str, stage: str | None, entries: list[Entry], series: dict[str, Series]
) -> History:
    """The table of one quantity."""
    # Several optimizers may share a step: each has its own total.
    last = {(one.step, _total(one.layout.rows)): one for one in entries}
    tabled = {step for step, _ in last}
    scalars = {
        _row(name): {s: v for s, v in one.numbers.items() if s not in tabled}
        for name, one in series.items()
    }
    rows: list[Row] = []
    for layout in {id(one.layout): one.layout for one in last.values()}.values():
        rows = _merged(rows, layout.rows)
    rows = _merged(rows, [row for row, numbers in scalars.items() if numbers])
    column = {row: j for j, row in enumerate(rows)}
    steps = sorted(tabled.union(*scalars.values()))
    line = {step: i for i, step in enumerate(steps)}
    table = np.full((len(steps), len(rows)), np.nan)
    measured = np.zeros(table.shape, dtype=bool)
    columns: dict[int, list[int]] = {}
    for one in last.values():
        where = columns.get(id(one.layout))
        if where is None:
            where = [column[row] for row in one.layout.rows]
            columns[id(one.layout)] = where
        table[line[one.step], where], measured[line[one.step], where] = _table.decode(
            one.tensor
        )
    table[~measured] = np.nan
    for row, numbers in scalars.items():
        if numbers:
            where = [line[step] for step in numbers]
            table[where, column[row]] = list(numbers.values())
            measured[where, column[row]] = True
    return History(
        quantity, stage, np.array(steps, dtype=np.int64), tuple(rows), table, measured
    )


def _total(rows: tuple[Row, ...]) -> str:
    return next((row.name for row in rows if row.kind == "total"), "")


def _row(name: str) -> Row:
    """The row of a scalar, from what follows the quantity in its tag."""
    layer, slash, parameter = name.partition("/")
    if layer == "total":
        return Row(name, "total")
    if not slash:
        return Row(layer, "layer")
    return Row(parameter if layer == "root" else f"{layer}.{parameter}", "parameter")


def _merged(rows: list[Row], others: Iterable[Row]) -> list[Row]:
    """Both, each in its order: what is new stands before what follows it there."""
    known = {row: i for i, row in enumerate(rows)}
    before: dict[int, list[Row]] = {}
    place = len(rows)
    for row in reversed(list(others)):
        if row in known:
            place = known[row]
        else:
            before.setdefault(place, []).append(row)
    return [
        row
        for i, one in enumerate([*rows, None])
        for row in (*reversed(before.get(i, [])), *(() if one is None else (one,)))
    ]
