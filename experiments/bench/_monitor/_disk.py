"""How many bytes on disk a number takes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab import Monitor
from gradlab.quantities import quantities
from gradlab.tensorboard import EventFileWriter

from ._nets import small_tensors
from ._row import Measuring, Part, Row

STEPS, QUICK_STEPS = 400, 30
GATE = 5.0
SETS: dict[str, dict[str, Any]] = {
    "default set": {},
    "everything": {"quantities": quantities},
}


@dataclass
class Count:
    """A sink that counts the numbers there are.

    Attributes:
        layers: Of layers and totals.
        all: Of parameters too.
    """

    layers: int = 0
    all: int = 0

    def __call__(self, snapshot: Any) -> None:
        """Count those of one snapshot.

        Args:
            snapshot: The snapshot.
        """
        each = snapshot.available.sum(1).tolist()
        self.all += sum(each)
        self.layers += sum(
            number
            for row, number in zip(snapshot.rows, each, strict=True)
            if row.kind != "parameter"
        )


def disk(quick: bool) -> Measuring:
    """Bytes of the event file for a row, quantity and step.

    Args:
        quick: Whether a short run will do: the names, written once, weigh more.

    Yields:
        The share that is done.
    """
    rows: list[Row] = []
    steps = QUICK_STEPS if quick else STEPS
    for k, (name, options) in enumerate(SETS.items()):
        run = small_tensors()
        with tempfile.TemporaryDirectory() as folder:
            layers, parameters = Path(folder, "layers"), Path(folder, "parameters")
            count = Count()
            sinks = [
                EventFileWriter(layers, scalars="off"),
                EventFileWriter(parameters, parameters=True, scalars="off"),
                count,
            ]
            with Monitor(run.model, run.optimizer, sinks=sinks, **options):
                for step in range(steps):
                    run.step()
                    yield (k + (step + 1) / steps) / len(SETS)
            gate = None if quick else GATE
            rows += [
                _row(f"{name}, layers", layers, count.layers, gate),
                _row(f"{name}, layers and parameters", parameters, count.all, gate),
            ]
    title = (
        f"bytes on disk for a row, quantity and step: tensor events of {steps} steps "
        "of the 150 small tensors"
    )
    return Part(title, rows)


def _row(name: str, folder: Path, numbers: int, gate: float | None) -> Row:
    size = sum(path.stat().st_size for path in folder.iterdir())
    note = f"{size:,} bytes for {numbers:,} numbers"
    return Row(name, size / numbers, "bytes", gate=gate, note=note)
