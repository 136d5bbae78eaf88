"""The event file of a run that does not end because there is no place for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .._snapshot import Snapshot
from ..monitor._sinks import Sink
from ..pathologies import Finding
from ..tensorboard import EventFileWriter
from ..tensorboard._writer import Scalars


def event_file(folder: Path, parameters: bool, scalars: Scalars) -> Sink:
    """An EventFileWriter, or what tries at each snapshot to make one.

    Args:
        folder: Its directory, made if missing.
        parameters: Whether to write the parameters too, not only the layers.
        scalars: Which standard scalars are written.

    Returns:
        The sink.

    Raises:
        ValueError: If `scalars` is none of those there are.
    """
    make = partial(EventFileWriter, folder, parameters, scalars)
    try:
        return make()
    except OSError:
        return _EventFile(make)


class _EventFile:
    """Makes the event file as soon as it can; a full disk may have room later.

    Until then each snapshot is an OSError: the monitor says the first, and counts all.
    """

    def __init__(self, make: Callable[[], EventFileWriter]) -> None:
        self._make = make
        self._writer: EventFileWriter | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        if self._writer is None:
            self._writer = self._make()
        self._writer(snapshot)

    def finding(self, finding: Finding) -> None:
        # What it was found in came before, and was said to be lost.
        if self._writer is not None:
            self._writer.finding(finding)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
