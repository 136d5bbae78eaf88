"""What a long watched run keeps in memory."""

from __future__ import annotations

import gc
import os
import resource
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from gradlab import Monitor
from gradlab.monitor import JsonLines, Watchdog
from gradlab.quantities import quantities
from gradlab.tensorboard import EventFileWriter

from ._row import Measuring, Part, Row

STEPS, QUICK_STEPS = 100_000, 3_000
GATE = 1024.0
_STATM = Path("/proc/self/statm")


def memory(quick: bool) -> Measuring:
    """What the memory grows by from a tenth of a run to its end, everything on.

    Args:
        quick: Whether a short run will do; it has no gate.

    Yields:
        The share that is done.
    """
    steps = QUICK_STEPS if quick else STEPS
    marks = {steps // 100: (0, 0), steps // 10: (0, 0), steps: (0, 0)}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = EventFileWriter(folder / "events", parameters=True, scalars="top")
        watchdog = Watchdog(
            outputs=[JsonLines(folder / "findings.jsonl")],
            recording=folder / "recording.json",
        )
        with Monitor(
            model,
            optimizer,
            quantities=quantities,
            activations=True,
            sinks=[events, watchdog],
        ) as monitor:
            for step in range(1, steps + 1):
                x, y = torch.randn(8, 4), torch.randn(8, 1)
                optimizer.zero_grad()
                functional.mse_loss(model(x), y).backward()
                optimizer.step()
                if step % 100 == 0:
                    yield step / steps
                    for path in (folder / "events").iterdir():
                        # Only the memory is of interest; the writer goes on behind.
                        os.truncate(path, 0)
                if step in marks:
                    marks[step] = used()
            failures = monitor.lost + watchdog.failures
            said = len(watchdog.findings)
    return Part(_title(failures, said), _rows(marks, None if quick else GATE))


def used() -> tuple[int, int]:
    """Resident KiB, and blocks that the interpreter has allocated."""
    gc.collect()
    if _STATM.exists():
        pages = int(_STATM.read_text().split()[1])
        return pages * resource.getpagesize() // 1024, sys.getallocatedblocks()
    # Elsewhere only the peak is known without another package.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kib = peak // 1024 if sys.platform == "darwin" else peak
    return kib, sys.getallocatedblocks()


def _title(failures: int, said: int) -> str:
    return (
        "memory of a long run: every quantity at every step into an event file with "
        "tables and scalars, watchdog, flight recorder "
        f"({said} findings, {failures} failures)"
    )


def _rows(marks: dict[int, tuple[int, int]], gate: float | None) -> list[Row]:
    _, tenth, end = marks
    span = f"from step {tenth:,} to {end:,}"
    resident, blocks = (
        ", ".join(f"{mark[k]:,} at {step:,}" for step, mark in marks.items())
        for k in (0, 1)
    )
    grown = [b - a for a, b in zip(marks[tenth], marks[end], strict=True)]
    return [
        Row(f"resident {span}", grown[0], "KiB", gate=gate, note=resident),
        Row(f"of Python's objects {span}", grown[1], "blocks", note=blocks),
    ]
