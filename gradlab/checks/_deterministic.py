"""The same run gives the same bits, whatever random numbers were drawn around it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gradlab._report import Level
from gradlab.subject import Crash, Grads, Mismatch, Subject, attempt, grad

from ._difference import same_values

SLOW = 5e-3
"""A run of so many seconds is repeated only `few` times."""


@dataclass(frozen=True)
class Deterministic:
    """y and x̄ of every run are those of the first, the generators put back before it.

    And x̄ is a function of x and ȳ: it must not change when other layers draw random
    numbers between forward and backward, as they do in every network with dropout.
    """

    level: Level = "contract"
    runs: int = 8
    few: int = 3

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for the forward, the backward and the random numbers."""
        began = time.perf_counter()
        results = [_run(subject)]
        runs = self.few if time.perf_counter() - began > SLOW else self.runs
        results += [_run(subject) for _ in range(runs - 1)]
        for what, index, first in (
            ("outputs", 0, subject.outputs),
            ("gradients", 1, subject.gradients[0]),
        ):
            errors = [_error(result[index], first, subject) for result in results]
            if (worst := max(errors)) >= 0:
                yield _mismatch(subject, what, worst, sum(e >= 0 for e in errors), runs)
                return
        drawn = attempt(lambda: _run(subject, draw=True))
        if isinstance(drawn, Crash):
            return
        error = _error(drawn[1], subject.gradients[0], subject)
        if error > subject.tolerance:
            yield Mismatch(
                "deterministic",
                "error",
                "the gradient changes when random numbers are drawn between forward "
                "and backward: the backward draws its own",
                hint="draw in the forward, and save the mask or the seed for the "
                "backward",
                numbers={"relative error": error},
                subject=subject,
            )


def _run(subject: Subject, draw: bool = False) -> tuple[Grads, Grads]:
    leaves = subject.fresh()
    ys = subject.run(leaves)
    outputs = tuple(y.detach().clone() for y in ys)
    if draw:
        torch.rand(1, device=ys[0].device)
        torch.rand(1)
        random.random()
        if numpy := sys.modules.get("numpy"):
            numpy.random.random()
    return outputs, grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])


def _error(got: Grads, first: Grads, subject: Subject) -> float:
    """The largest relative error; negative where all bits are the same."""
    worst = -1.0
    for g, r in zip(got, first, strict=True):
        if g is None or r is None:
            worst = max(worst, -1.0 if g is r else float("inf"))
        elif not same_values(g, r):
            scale = float(r.abs().nan_to_num(0.0, 0.0, 0.0).max()) or 1.0
            error = float(((g - r).abs() / scale).nan_to_num(0.0, torch.inf).max())
            worst = max(worst, error)
    return worst


def _mismatch(
    subject: Subject, what: str, error: float, count: int, runs: int
) -> Mismatch:
    rounding = error <= subject.tolerance
    return Mismatch(
        "deterministic",
        "note" if rounding else "error",
        f"{count} of {runs} identical runs give other {what}"
        + (", by rounding only" if rounding else ""),
        verdict="correct" if rounding else "fragile",
        hint=""
        if rounding
        else "random numbers drawn in the backward, uninitialised memory, a race, or "
        "state that outlives a run",
        numbers={"relative error": error},
        subject=subject,
    )
