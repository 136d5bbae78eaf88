"""Steps so small that they change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology


@dataclass(frozen=True)
class UpdateTooSmall(Pathology):
    """‖Δw‖ / ‖w‖ of nearly every weight is below what float32 resolves well.

    The spacing of float32 numbers is 2⁻²³ ≈ 1.2e-7 of their size: an update ten times
    that is rounded to a few bits, one below it is mostly lost.

    Attributes:
        ratio: The largest ratio that is too small.
        recent: For how many readings in a row.
    """

    ratio: float = 2.0**-21
    recent: int = 16

    code: ClassVar[str] = "update_too_small"
    needs: ClassVar[tuple[str, ...]] = ("update_ratio",)
    follows: ClassVar[tuple[str, ...]] = (
        "non_finite",
        "disconnected",
        "dead_units",
        "saturated_units",
        "vanishing",
        "underflow",
        "clipping_always_on",
    )

    def __call__(self, history: History) -> Finding | None:
        """Look at the last updates.

        Args:
            history: The run.
        """
        if len(history) < self.recent or not len(history.weights):
            return None
        ratios = history.last("update_ratio", self.recent)[:, history.weights]
        ratios = ratios[:, np.isfinite(ratios).all(0)]
        if not ratios.size:
            return None
        largest = ratios.max(0)
        small = largest < self.ratio
        if small.mean() < 0.9:
            return None
        middle = float(median(median(ratios), axis=0))
        return Finding(
            self.code,
            history.step,
            f"{small.sum()} of {len(small)} weights moved by less than "
            f"{self.ratio:.0e} of their norm, {self.recent} readings in a row",
            evidence={"update_ratio": middle, "weights": float(small.sum())},
            causes=(
                *(("a gradient of zero: see dead_units",) if middle == 0 else ()),
                "a learning rate far too small, or a schedule that ended",
                "a gradient that vanishes or is clipped to nothing",
                "parameters in half precision, where the update is rounded away",
            ),
            experiment="a learning rate a thousand times larger for twenty steps",
            confidence=0.9 if middle else 0.6,
            level=self.ratio / middle if middle else float("inf"),
        )
