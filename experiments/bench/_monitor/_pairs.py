"""Times watched steps against unwatched ones, a pair at a time."""

from __future__ import annotations

import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ._nets import Training
from ._watches import Watch

Found = TypeVar("Found")

WARM_UP = 2
"""Steps that are not timed: the first reading lists what there is to read, and some
quantities compare with the step before."""
BURST = 0.03
"""Seconds that one network is trained before it is the other's turn, or one step."""
LEAST = 9
"""Rounds before anything is said."""


@dataclass
class Pairs:
    """What was timed of one way of watching, one entry a round.

    An entry is the median over the steps of a round. Steps of the two networks take
    turns, so both have the same quiet and busy moments of the machine.

    Attributes:
        watched: Seconds a step.
        unwatched: Seconds a step, of the twin.
        cpu: The same two of processor time, of all threads.
    """

    watched: list[float] = field(default_factory=list)
    unwatched: list[float] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)

    @property
    def shares(self) -> list[float]:
        """What watching adds, as a share of the unwatched step."""
        pairs = zip(self.watched, self.unwatched, strict=True)
        return [a / b - 1 for a, b in pairs]

    @property
    def added(self) -> float:
        """What watching adds, seconds a step, the median over the rounds."""
        pairs = zip(self.watched, self.unwatched, strict=True)
        return statistics.median(a - b for a, b in pairs)

    @property
    def added_cpu(self) -> float:
        """What watching adds of processor time, as a share of the unwatched step."""
        return statistics.median(a / b - 1 for a, b in self.cpu)

    def decided(self, gate: float | None) -> bool:
        """Whether more rounds would hardly change on which side of a gate this is.

        Args:
            gate: The share that is allowed; of None only the least rounds are asked.
        """
        if len(self.watched) < LEAST:
            return False
        low, high = interval(self.shares)
        return gate is None or not low <= gate <= high


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by order statistics.

    Args:
        values: Independent draws.

    Example:
        >>> interval(range(100))
        (40, 59)
    """
    n = len(values)
    cut = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))
    ordered = sorted(values)
    return ordered[cut], ordered[n - 1 - cut]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile.

    Args:
        values: Two at least.
    """
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def result(measuring: Generator[float, None, Found]) -> Found:
    """What a measurement returns when it is done.

    Args:
        measuring: Under way; what it yields is dropped.
    """
    while True:
        try:
            next(measuring)
        except StopIteration as end:
            return end.value


def pairs(
    build: Callable[[], Training],
    watches: Mapping[str, Watch],
    gates: Mapping[str, float],
    seconds: float,
    turn: float = 0.25,
) -> Generator[float, None, dict[str, Pairs]]:
    """Time every way of watching against an unwatched twin, in turn.

    There are two equal networks. Some watched steps of one and some steps of the other
    follow on each other, in either order; from round to round the two change roles, so
    that where their memory happens to lie favours neither. The garbage collector is on,
    as in training, and is run before each round. A way leaves the rounds when the
    interval of its median is clear of its gate.

    Args:
        build: Makes the network.
        watches: The ways.
        gates: What some of them may add, as a share of the unwatched step.
        seconds: When to stop even if something is undecided.
        turn: How long a round of one way takes, seconds; three pairs at least.

    Yields:
        The share that is done.

    Returns:
        The times, by the name of the way.
    """
    twins = build(), build()
    alone = timed([twins[0].step, twins[1].step], 5)[0][0]
    burst = max(1, round(BURST / alone))
    times = {name: Pairs() for name in watches}
    began, rounds, done = time.perf_counter(), 0, 0.0
    with tempfile.TemporaryDirectory() as folder, _frozen():
        while True:
            left = [n for n in watches if not times[n].decided(gates.get(n))]
            if not left or (done >= 1 and rounds >= 3):
                return times
            shift = rounds % len(left)
            for name in left[shift:] + left[:shift]:
                watched, twin = twins if rounds % 2 else reversed(twins)
                with watches[name](watched, Path(folder, f"{rounds}-{name}")):
                    warm = timed([watched.step, twin.step], WARM_UP)[0][0]
                    bursts = max(3, round(turn / (warm + alone) / burst))
                    gc.collect()
                    both = timed([watched.step, twin.step], bursts, burst)
                    (a, cpu_a), (b, cpu_b) = both
                times[name].watched.append(a)
                times[name].unwatched.append(b)
                times[name].cpu.append((cpu_a, cpu_b))
                done = (time.perf_counter() - began) / seconds
                yield min(1.0, done)
            rounds += 1


@contextmanager
def _frozen() -> Iterator[None]:
    """What is there already is no work for the collector."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def timed(
    steps: Sequence[Callable[[], object]], bursts: int, burst: int = 1
) -> list[tuple[float, float]]:
    """The median seconds of each of some steps that take turns, back and forth.

    Args:
        steps: What to time.
        bursts: How many turns each has.
        burst: How often it is called in a turn; of several the first is not timed: it
            finds the caches of the processor with the memory of the others.

    Returns:
        Of each its wall-clock time and its processor time.
    """
    walls: list[list[float]] = [[] for _ in steps]
    cpus: list[list[float]] = [[] for _ in steps]
    order = list(range(len(steps)))
    for _ in range(bursts):
        for i in order:
            for k in range(burst):
                cpu, start = time.process_time(), time.perf_counter()
                steps[i]()
                if k or burst == 1:
                    walls[i].append(time.perf_counter() - start)
                    cpus[i].append(time.process_time() - cpu)
        order.reverse()
    medians = map(statistics.median, walls), map(statistics.median, cpus)
    return list(zip(*medians, strict=True))
