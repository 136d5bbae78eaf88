"""Writes snapshots to a TensorBoard event file, one event a step."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .._snapshot import Row, Snapshot, Stage
from ..pathologies import Finding
from . import _scalars, _table, _text
from ._movers import Movers
from ._records import RecordFile

Scalars = Literal["all", "top", "off"]
"""Which standard scalars are written beside the tables."""


class EventFileWriter:
    """A monitor's sink that writes an event file which TensorBoard shows.

    **Tables**, for `read_run`: for each quantity one tensor a step under
    `gradlab/<quantity>`, four bytes a layer. A number beyond float32 makes the tensor
    of its step float64.

    **Scalars**, for TensorBoard as it comes: `grad_norm/total`, `grad_norm/<layer>`
    with the module path of each layer that owns parameters, and with `parameters` also
    `grad_norm/<layer>/<parameter>`. They cost ten times the bytes. The description of
    each tag names the stage at which the gradient was read. What is unavailable is not
    written; NaN is. Scalars are float32: below 1e-45 they are 0, above 3e38 infinite.

    The stage at which a quantity comes first has these tags; another one has `_<stage>`
    behind the quantity, as `grad_norm_applied/<layer>`.

    **Text**, for TensorBoard's tab of that name: what `finding` is handed.

    Each snapshot is with the operating system when the call returns: it survives the
    death of the process, and `flush` makes it survive that of the machine. A snapshot
    for which the disk has no room is an error and leaves no trace; the next one may
    find room again.

    Args:
        log_dir: The directory of the event file, made if missing.
        parameters: Whether to write the parameters too, not only the layers.
        scalars: `"all"`; `"off"`; or `"top"`: at each step the total and the `top_k`
            tags that moved most, relative to their last written number.
        top_k: How many.

    Raises:
        OSError: If the directory cannot be made or written to.
        ValueError: If `scalars` or `top_k` is not as said above.

    Example:
        >>> from tempfile import mkdtemp
        >>> import gradlab, torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters())
        >>> sink = EventFileWriter(mkdtemp())
        >>> with gradlab.Monitor(model, optimizer, sinks=[sink]):
        ...     model(torch.ones(4, 2)).sum().backward()
        ...     optimizer.step()
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        parameters: bool = False,
        scalars: Scalars = "all",
        top_k: int = 10,
    ) -> None:
        if scalars not in get_args(Scalars):
            raise ValueError(
                f"scalars are one of {get_args(Scalars)}, got scalars={scalars!r}"
            )
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k is a whole number from 1, got top_k={top_k!r}")
        self.log_dir = Path(log_dir)
        self.parameters = parameters
        self.scalars: Scalars = scalars
        self._movers = Movers(top_k)
        self._stages: dict[str, Stage] = {}
        self._described: set[str] = set()
        self._rows: dict[str, list[_Rows]] = {}
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            self._file = RecordFile(self.log_dir)
        except OSError as error:
            raise OSError(
                error.errno,
                "an event file is written below a directory that exists or can be made "
                f"({error.strerror}); choose another log_dir or its permissions; got",
                os.fspath(log_dir),
            ) from error

    def __call__(self, snapshot: Snapshot) -> None:
        """Write one snapshot.

        Args:
            snapshot: What was measured at one step.

        Raises:
            OSError: If there is no room for it, or the file was deleted.
            ValueError: If the writer is closed.
        """
        fresh: list[str] = []
        summary = b"".join(self._summary(snapshot, fresh))
        if not summary:
            return
        try:
            self._append(snapshot.step, summary)
        except OSError:
            self._movers.forget()
            raise
        self._described.update(fresh)

    def finding(self, finding: Finding) -> None:
        """Write a finding as text; an output of `Watchdog`.

        Args:
            finding: What was found.

        Raises:
            OSError: If there is no room for it, or the file was deleted.
            ValueError: If the writer is closed.
        """
        text = _text.encode(f"gradlab/{finding.code}", str(finding))
        self._append(finding.step, text)

    def _append(self, step: int, summary: bytes) -> None:
        self._file.append(_event(step, summary))

    def _summary(self, snapshot: Snapshot, fresh: list[str]) -> Iterator[bytes]:
        """The values of a snapshot, and the tags that are described with them."""
        stage = snapshot.stage
        rows = self._kept(snapshot.rows)
        values, available = snapshot.values.numpy(), snapshot.available.numpy()
        if len(rows.where) < len(rows.given):
            values, available = values[rows.where], available[rows.where]
        for k, quantity in enumerate(snapshot.quantities):
            if not available[:, k].any():
                continue
            first = self._stages.setdefault(quantity, stage)
            name = quantity if stage == first else f"{quantity}_{stage}"
            tag = f"{_table.PLUGIN}/{name}{rows.suffix}"
            if tag in self._described:
                yield _table.encode(tag, values[:, k], available[:, k])
            else:
                layout = _table.Layout(quantity, stage, rows.rows)
                yield _table.describe_and_encode(
                    tag, layout, values[:, k], available[:, k]
                )
                fresh.append(tag)
            if self.scalars == "off":
                continue
            chosen = (
                np.flatnonzero(available[:, k])
                if self.scalars == "all"
                else self._movers(tag, values[:, k], available[:, k], rows.total)
            )
            data, new = _scalars.encode(
                [f"{name}/{rows.tags[i]}" for i in chosen.tolist()],
                values[chosen, k],
                stage,
                self._described,
            )
            fresh += new
            yield data

    def _kept(self, rows: tuple[Row, ...]) -> _Rows:
        """What is written of these rows; the same object for the same rows."""
        total = next((row.name for row in rows if row.kind == "total"), "total")
        known = self._rows.setdefault(total, [])
        for one in known:
            # The same objects as a rule: no name is compared.
            if one.given is rows or one.given == rows:
                return one
        where = [
            i
            for i, row in enumerate(rows)
            if self.parameters or row.kind != "parameter"
        ]
        kept = tuple(rows[i] for i in where)
        one = _Rows(
            rows,
            kept,
            np.array(where, dtype=np.int64),
            [row.tag for row in kept],
            np.array([row.kind == "total" for row in kept], dtype=bool),
            total.removeprefix("total") + (f"~{len(known) + 1}" if known else ""),
        )
        known.append(one)
        return one

    def flush(self) -> None:
        """Wait until everything is on disk."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; a snapshot after that is an error."""
        self._file.close()

    def __enter__(self) -> EventFileWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Rows(NamedTuple):
    """Rows of snapshots, and what is written of them."""

    given: tuple[Row, ...]
    rows: tuple[Row, ...]
    where: NDArray[np.int64]
    tags: list[str]
    total: NDArray[np.bool_]
    suffix: str


def _event(step: int, summary: bytes) -> bytes:
    """The bytes of an Event of now; a fifth of the time that an object takes.

    Args:
        step: The step.
        summary: The bytes of its Summary.
    """
    parts = _WALL_TIME, _DOUBLE(time.time()), _STEP, _varint(step), _SUMMARY
    return b"".join((*parts, _varint(len(summary)), summary))


# Fields 1, 2 and 5 of an Event; the low bits say how long a field is.
_WALL_TIME, _STEP, _SUMMARY = b"\x09", b"\x10", b"\x2a"
_DOUBLE = struct.Struct("<d").pack


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
