"""The root mean square of a module's output, √(Σᵢ|yᵢ|² / n)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class ActivationRMS(Quantity):
    """The root mean square of a module's output.

    Example:
        >>> ActivationRMS()(4, 6.0)
        3.0
    """

    name: ClassVar[str] = "activation_rms"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (Norm("value"),)

    def __call__(self, count: int, *moments: float) -> float:
        """‖y‖ / √n; 0 where there are no entries.

        Args:
            count: How many entries the outputs of the step have.
            *moments: Their norm.
        """
        return moments[0] / math.sqrt(count) if count else 0.0
