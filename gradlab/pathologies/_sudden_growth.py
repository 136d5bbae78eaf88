"""The whole gradient is suddenly far larger than it was in this run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._finding import Finding
from ._history import History, deviation, median
from ._pathology import Pathology


@dataclass(frozen=True)
class SuddenGrowth(Pathology):
    """The norm of the whole gradient left its own past, and stays away.

    The past are the readings before the last `recent` ones, and the first of the run;
    outliers do not move its median, so a spike does not hide the next one.

    Attributes:
        factor: The smallest ratio to the past, and to the start, that is too large.
        deviations: By how many robust standard deviations of log₁₀ ‖g‖ besides.
        recent: How many readings in a row must be so large.
    """

    factor: float = 30.0
    deviations: float = 6.0
    recent: int = 3

    code: ClassVar[str] = "sudden_growth"
    needs: ClassVar[tuple[str, ...]] = ("grad_norm",)
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        """Look at the total of the last readings.

        Args:
            history: The run.
        """
        norms = history["grad_norm"][:, history.total()]
        if len(norms) <= self.recent:
            return None
        least = float(norms[-self.recent :].min())
        first = history.start("grad_norm")[:, history.total()]
        begin = float(median(first[: max(1, min(len(first), history.seen - 3))]))
        # Most calls end here.
        if not least > self.factor * begin or not math.isfinite(least):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            past = np.log10(norms[: -self.recent])
        middle, wide = float(median(past)), float(deviation(past))
        if not math.isfinite(middle):
            return None
        now = math.log10(least)
        if now < middle + max(math.log10(self.factor), self.deviations * wide):
            return None
        ratio = 10 ** (now - middle)
        return Finding(
            self.code,
            history.step,
            f"the gradient is {ratio:.2g} times its median so far, for {self.recent} "
            "readings: the run diverges",
            evidence={
                "ratio": ratio,
                "norm": 10**now,
                "median": 10**middle,
                "norm_at_the_start": begin,
            },
            causes=(
                "a learning rate too large, now or at the end of a warm-up",
                "a batch that is unlike the others: an outlier or a broken input",
                "a recurrent network whose state grows from step to step",
            ),
            experiment="the same steps with a third of the learning rate, from a "
            "checkpoint before them",
            confidence=min(0.95, 0.6 + 0.1 * math.log10(ratio)),
            level=ratio,
        )
