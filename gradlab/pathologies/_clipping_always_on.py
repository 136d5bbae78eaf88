"""Every step's gradient is clipped, and by much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology


@dataclass(frozen=True)
class ClippingAlwaysOn(Pathology):
    """The clip coefficient min(1, c / ‖g‖) is far below 1 at nearly every step.

    Clipping is for the rare large step. One that is always on makes the step length the
    same whatever the gradient, and c a second learning rate.

    Attributes:
        coefficient: The largest median that is too small.
        share: The smallest share of clipped steps.
        recent: Over how many readings.
    """

    coefficient: float = 0.05
    share: float = 0.95
    recent: int = 16

    code: ClassVar[str] = "clipping_always_on"
    needs: ClassVar[tuple[str, ...]] = ("clip_coefficient",)

    def __call__(self, history: History) -> Finding | None:
        """Look at the coefficients of the last readings.

        Args:
            history: The run.
        """
        if len(history) < self.recent:
            return None
        kept = history.last("clip_coefficient", self.recent)[:, history.total()]
        middle, share = float(median(kept)), float((kept < 1).mean())
        if not middle < self.coefficient or share < self.share:
            return None
        return Finding(
            self.code,
            history.step,
            f"{share:.0%} of the last {self.recent} gradients were clipped, the median "
            f"one to {middle:.2g} of its norm",
            evidence={"coefficient": middle, "share_clipped": share},
            causes=(
                "a clip value far below the usual norm of this network's gradient",
                "gradients that grew: see sudden_growth and exploding",
            ),
            experiment=f"a clip value {1 / max(middle, 1e-6):.0f} times larger, or "
            "the 90th percentile of the norms before clipping",
            confidence=0.7,
            level=1 / middle if middle else float("inf"),
        )
