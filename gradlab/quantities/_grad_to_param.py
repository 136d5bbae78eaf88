"""The gradient's norm over the parameters', ‖g‖ / ‖w‖: a plain step's relative size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ._moment import Moment
from ._moments import Norm
from ._quantity import Quantity


@dataclass(frozen=True)
class GradToParam(Quantity):
    """The norm of the gradient relative to that of the parameters.

    Example:
        >>> GradToParam()(2, 1.0, 4.0)
        0.25
    """

    name: ClassVar[str] = "grad_to_param"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(), Norm("value"))

    def __call__(self, count: int, *moments: float) -> float:
        """‖g‖ / ‖w‖; infinite where all parameters are zero and the gradient is not.

        Args:
            count: How many entries there are.
            *moments: The norms of the gradient and of the values.
        """
        g, w = moments
        return g / w if w else math.inf if g else 0.0
