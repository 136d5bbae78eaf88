"""The mean of a module's output, Σᵢ yᵢ / n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ._activation_moments import Total
from ._moment import Moment
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class ActivationMean(Quantity):
    """The mean of a module's output.

    Example:
        >>> ActivationMean()(4, 6.0)
        1.5
    """

    name: ClassVar[str] = "activation_mean"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (Total(),)

    def __call__(self, count: int, *moments: float) -> float:
        """Σ y / n; 0 where there are no entries.

        Args:
            count: How many entries the outputs of the step have.
            *moments: Their sum.
        """
        return moments[0] / count if count else 0.0
