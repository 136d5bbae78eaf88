"""How what watching adds grows with the number of tensors."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from gradlab import Monitor
from gradlab.quantities import GradNorm, quantities
from gradlab.tensorboard import EventFileWriter

from ._nets import tiny_tensors
from ._pairs import pairs
from ._row import Measuring, Part, Row
from ._watches import watch_gradlab

SIZES = (100, 1_000, 10_000)
GATE = 1.1
OBSERVE = "Monitor.observe, grad norms"
WATCHES = {
    "watched optimizer, grad norms": watch_gradlab(quantities=[GradNorm()]),
    "watched optimizer, default set": watch_gradlab(),
    "watched optimizer, everything of parameters": watch_gradlab(
        quantities=[q for q in quantities if q.feed != "activation"]
    ),
}


def scaling(quick: bool) -> Measuring:
    """What watching adds for 100, 1,000 and 10,000 tensors.

    Args:
        quick: Whether a rough figure will do.

    Yields:
        The share that is done.
    """
    added: dict[str, list[float]] = {name: [] for name in (OBSERVE, *WATCHES)}
    for k, size in enumerate(SIZES):
        added[OBSERVE].append(observing(size, 5 if quick else 15))
        build = partial(tiny_tensors, size)
        measuring = pairs(build, WATCHES, {}, 3.0 if quick else 20.0)
        while True:
            try:
                yield (k + next(measuring)) / len(SIZES)
            except StopIteration as end:
                for name, found in end.value.items():
                    added[name].append(found.added)
                break
    rows = [_row(name, seconds) for name, seconds in added.items()]
    sizes = ", ".join(f"{size:,}" for size in SIZES)
    title = (
        f"what is added a step for {sizes} tiny tensors: the steeper slope of the two "
        "decades, log time over log number"
    )
    return Part(title, rows)


def observing(size: int, rounds: int) -> float:
    """Seconds that a reading of gradients takes, the median.

    Args:
        size: How many tensors there are.
        rounds: How many readings.
    """
    model = tiny_tensors(size).model
    times = []
    with tempfile.TemporaryDirectory() as folder:
        sink = EventFileWriter(Path(folder), parameters=True, scalars="off")
        with Monitor(model, quantities=[GradNorm()], sinks=[sink]) as monitor:
            for step in range(rounds + 2):
                start = time.perf_counter()
                monitor.observe(step, "applied")
                times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The largest slope of log seconds over log size between neighbours.

    Args:
        sizes: Ascending.
        seconds: One for each.

    Example:
        >>> slope((10, 100, 1000), [1.0, 5.0, 50.0])
        1.0
    """
    points = list(zip(sizes, seconds, strict=True))
    return max(
        math.log(t / s) / math.log(n / m) if min(s, t) > 0 else math.nan
        for (m, s), (n, t) in pairwise(points)
    )


def _row(name: str, seconds: list[float]) -> Row:
    each = ", ".join(f"{1e6 * t / n:.2f}" for n, t in zip(SIZES, seconds, strict=True))
    note = f"us a tensor: {each}"
    return Row(name, slope(SIZES, seconds), "slope", gate=GATE, note=note)
