"""Hands snapshots to sinks without letting a sink stop the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from .._snapshot import Snapshot
from ..pathologies import Finding
from ._options import must_be_listed

Sink = Callable[[Snapshot], object]
"""Whatever takes a snapshot; it may have `finding(finding)`, `crashed(error)`,
`flush()` and `close()`."""


class Sinks:
    """All sinks of a monitor. One that fails is reported once, each loss is counted.

    Args:
        sinks: What is called with each snapshot.

    Raises:
        TypeError: If one cannot be called.

    Attributes:
        lost: How often a sink failed to take a snapshot.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        must_be_listed("sinks", sinks)
        for sink in sinks:
            if not callable(sink) or isinstance(sink, type):
                raise TypeError(
                    f"a sink is called with each Snapshot, got {sink!r}; a class must "
                    "be made an instance first"
                )
        self.lost = 0
        self._sinks = [*sinks]
        self._closed = False
        self._reported: set[int] = set()

    def take(self, snapshot: Snapshot) -> None:
        """Hand one snapshot to every sink.

        Args:
            snapshot: What was measured.
        """
        for sink in self._sinks:
            if not self._try(sink, sink, snapshot):
                self.lost += 1

    def add(self, sink: Sink) -> None:
        """One sink more.

        Args:
            sink: It is the last to be called.
        """
        self._sinks.append(sink)

    def of_findings(self) -> list[Callable[[Finding], object]]:
        """What takes findings too: the method `finding` of the sinks that have it."""
        found = [getattr(sink, "finding", None) for sink in self._sinks]
        return [method for method in found if callable(method)]

    def flush(self) -> None:
        """Flush the sinks that can be flushed; closed ones have been."""
        if not self._closed:
            self._each("flush")

    def close(self) -> None:
        """Close the sinks that can be closed."""
        self._closed = True
        self._each("close")

    def crashed(self, error: BaseException) -> None:
        """Tell the sinks that want to know what ended the run.

        Args:
            error: What did.
        """
        self._each("crashed", error)

    def _each(self, method: str, *args: object) -> None:
        for sink in self._sinks:
            call = getattr(sink, method, None)
            if callable(call):
                self._try(sink, call, *args)

    def _try(self, sink: Sink, call: Callable[..., object], *args: object) -> bool:
        try:
            call(*args)
        except Exception as error:
            if id(sink) not in self._reported:
                self._reported.add(id(sink))
                warnings.warn(
                    "a sink must take what it is handed; "
                    f"{getattr(sink, '__qualname__', type(sink).__name__)} raised "
                    f"{type(error).__name__}: {error}. Training goes on; what this "
                    "sink misses from now on is only counted, in Monitor.lost",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return False
        return True
