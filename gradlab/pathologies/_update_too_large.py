"""Steps so large that the parameters are thrown away and not moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology


@dataclass(frozen=True)
class UpdateTooLarge(Pathology):
    """‖Δw‖ / ‖w‖ of the median weight is near 1 step after step.

    Healthy runs are near 1e-3, and a warm-up or a small initial weight may be a hundred
    times that for a while; a weight that is replaced by each step learns nothing.

    Attributes:
        ratio: The smallest median over the weights that is too large.
        recent: For how many readings in a row.
    """

    ratio: float = 0.2
    recent: int = 3

    code: ClassVar[str] = "update_too_large"
    needs: ClassVar[tuple[str, ...]] = ("update_ratio",)
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        """Look at the last updates.

        Args:
            history: The run.
        """
        if len(history) < self.recent or not len(history.weights):
            return None
        ratios = history.last("update_ratio", self.recent)[:, history.weights]
        least = float(median(ratios, axis=1).min())
        if not self.ratio <= least < math.inf:
            return None
        each = median(ratios)
        order = [int(i) for i in (-each).argsort() if each[i] >= self.ratio]
        names = tuple(history.rows[history.weights[i]].name for i in order)
        return Finding(
            self.code,
            history.step,
            f"each of the last {self.recent} steps changed the median weight by "
            f"{least:.0%} of its norm or more",
            layers=names,
            evidence={
                "update_ratio": least,
                "weights": float(len(names)),
                "of": float(len(history.weights)),
            },
            causes=(
                "a learning rate far too large",
                "a gradient that exploded, without clipping",
                "initial weights near zero",
            ),
            experiment="a learning rate "
            f"{10 ** math.ceil(math.log10(least / 1e-2))} times smaller",
            confidence=0.9,
            level=least,
        )
