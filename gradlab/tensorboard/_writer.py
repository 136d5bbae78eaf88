"""Writes snapshots to a TensorBoard event file, one event a step."""

# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer import event_file_writer

from .._snapshot import Snapshot, Stage
from ._stage import STAGE


class EventFileWriter:
    """A monitor's sink that writes TensorBoard scalars.

    **Logged tags**, for each quantity: `grad_norm/total`, `grad_norm/<layer>` with the
    module path of each layer that owns parameters, and with `parameters` also
    `grad_norm/<layer>/<parameter>`. The description of each tag names the stage at
    which the gradient was read. What is unavailable is not written; NaN is.

    TensorBoard keeps scalars in float32: below 1e-45 they are 0, above 3e38 infinite.

    Args:
        log_dir: The directory of the event file, made if missing.
        parameters: Whether to write one tag a parameter too.

    Raises:
        OSError: If the directory cannot be made or written to.

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
        self, log_dir: str | os.PathLike[str], parameters: bool = False
    ) -> None:
        self.log_dir = Path(log_dir)
        self.parameters = parameters
        self._stage: Stage | None = None
        self._described: set[str] = set()
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            # Asking is not enough: root may always, a read-only mount never.
            with tempfile.TemporaryFile(dir=self.log_dir):
                pass
        except OSError as error:
            raise OSError(
                error.errno,
                "an event file is written below a directory that exists or can be made "
                f"({error.strerror}); choose another log_dir or its permissions; got",
                os.fspath(log_dir),
            ) from error
        # TensorBoard's own writer fails in its thread, too late and twice.
        self._writer = event_file_writer.EventFileWriter(os.fspath(self.log_dir))

    def __call__(self, snapshot: Snapshot) -> None:
        """Write one snapshot.

        Args:
            snapshot: What was measured at one step.

        Raises:
            ValueError: If it is of another stage than the ones before: two meanings of
                one tag would be one curve.
        """
        if self._stage is None:
            self._stage = snapshot.stage
        if snapshot.stage != self._stage:
            raise ValueError(
                f"an event file holds gradients of one stage, here {self._stage!r}, "
                f"got a snapshot of stage {snapshot.stage!r}; give that a writer of "
                "its own"
            )
        summary = summary_pb2.Summary()
        for tag, value in snapshot.scalars(self.parameters).items():
            entry = summary.value.add(tag=tag, simple_value=value)
            if tag not in self._described:
                self._described.add(tag)
                entry.metadata.CopyFrom(_metadata(snapshot.stage))
        if summary.value:
            self._writer.add_event(
                event_pb2.Event(
                    wall_time=time.time(), step=snapshot.step, summary=summary
                )
            )

    def flush(self) -> None:
        """Wait until everything is on disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file; a snapshot after that is an error."""
        self._writer.close()

    def __enter__(self) -> EventFileWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _metadata(stage: Stage) -> summary_pb2.SummaryMetadata:
    return summary_pb2.SummaryMetadata(
        summary_description=f"{STAGE}{stage}",
        plugin_data={"plugin_name": "scalars"},
        data_class=summary_pb2.DATA_CLASS_SCALAR,
    )
