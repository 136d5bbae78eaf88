"""Timing candidates against each other on a machine that other jobs share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int,
    seconds: float = 0.0,
) -> dict[str, list[float]]:
    """Times the candidates in turn, so that a slow moment slows all of them.

    Each is called once to warm up, then once a round; the order rotates. A candidate
    that takes under a millisecond is called as often as fits into one.

    Args:
        candidates: What to call, by name.
        repeats: Rounds, at most.
        seconds: Stop after the fifth round once this much time has passed; 0: never.

    Returns:
        Seconds a call for each round, by name.

    Example:
        >>> times = interleave({"a": lambda: None, "b": lambda: None}, repeats=3)
        >>> [len(rounds) for rounds in times.values()]
        [3, 3]
    """
    calls = {}
    for name, candidate in candidates.items():
        candidate()
        start = time.perf_counter()
        candidate()
        calls[name] = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-9)))
    calls = dict.fromkeys(calls, max(calls.values()))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    began = time.perf_counter()
    for turn in range(repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            candidate, count = candidates[name], calls[name]
            start = time.perf_counter()
            for _ in range(count):
                candidate()
            times[name].append((time.perf_counter() - start) / count)
        if seconds and turn >= 4 and time.perf_counter() - began > seconds:
            break
    return times


def ratio(slower: list[float], faster: list[float]) -> float:
    """The median over the rounds of the ratio within a round.

    Args:
        slower: Times of the peer.
        faster: Times of the one that is measured against it.

    Returns:
        Above 1 where the second is faster.

    Example:
        >>> ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
        2.0
    """
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))
