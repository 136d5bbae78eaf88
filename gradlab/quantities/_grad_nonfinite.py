"""How many entries of the gradient are NaN or infinite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ._moment import Moment
from ._moments import NonFiniteCount
from ._quantity import Quantity


@dataclass(frozen=True)
class GradNonFinite(Quantity):
    """The number of entries of the gradient that are NaN or infinite.

    Example:
        >>> GradNonFinite()(6, 2.0)
        2.0
    """

    name: ClassVar[str] = "grad_nonfinite"
    moments: ClassVar[tuple[Moment, ...]] = (NonFiniteCount(),)

    def __call__(self, count: int, *moments: float) -> float:
        """The count.

        Args:
            count: How many entries there are.
            *moments: The count.
        """
        return moments[0]
