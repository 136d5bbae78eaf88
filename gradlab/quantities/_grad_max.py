"""The largest magnitude in the gradient, maxᵢ|gᵢ|."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ._moment import Moment
from ._moments import LargestMagnitude
from ._quantity import Quantity


@dataclass(frozen=True)
class GradMax(Quantity):
    """The largest magnitude in the gradient; NaN if an entry is NaN.

    Example:
        >>> GradMax()(2, 0.5)
        0.5
    """

    name: ClassVar[str] = "grad_max"
    moments: ClassVar[tuple[Moment, ...]] = (LargestMagnitude(),)

    def __call__(self, count: int, *moments: float) -> float:
        """The largest magnitude.

        Args:
            count: How many entries there are.
            *moments: The largest magnitude.
        """
        return moments[0]
