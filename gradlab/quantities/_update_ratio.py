"""The update's norm over the parameters', ‖Δw‖ / ‖w‖: how far a step moves a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class UpdateRatio(Quantity):
    """What the optimizer added to the parameters, relative to them.

    About 1e-3 in many healthy runs (Karpathy). It is measured of the weights, whatever
    the optimizer.

    Example:
        >>> UpdateRatio()(2, 0.1, 10.0)
        0.01
    """

    name: ClassVar[str] = "update_ratio"
    feed: ClassVar[Feed] = "update"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(), Norm("value"))

    def __call__(self, count: int, *moments: float) -> float:
        """‖Δw‖ / ‖w‖; infinite where all parameters were zero and moved.

        Args:
            count: How many entries there are.
            *moments: The norms of the update and of the parameters before it.
        """
        update, before = moments
        return update / before if before else math.inf if update else 0.0
