"""The largest magnitude in the gradient, maxᵢ|gᵢ|."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import LargestMagnitude
from ._quantity import Quantity


@dataclass(frozen=True)
class GradMax(Quantity):
    """The largest magnitude in the gradient; NaN if an entry is NaN.

    Example:
        >>> import torch
        >>> GradMax()(*torch.tensor([2.0, 0.5]))
        tensor(0.5000)
    """

    name: ClassVar[str] = "grad_max"
    moments: ClassVar[tuple[Moment, ...]] = (LargestMagnitude(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """The largest magnitude.

        Args:
            count: How many entries there are.
            *moments: The largest magnitude.
        """
        return moments[0]
