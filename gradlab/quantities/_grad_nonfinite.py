"""How many entries of the gradient are NaN or infinite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import NonFiniteCount
from ._quantity import Quantity


@dataclass(frozen=True)
class GradNonFinite(Quantity):
    """The number of entries of the gradient that are NaN or infinite.

    Example:
        >>> import torch
        >>> GradNonFinite()(*torch.tensor([6.0, 2.0]))
        tensor(2.)
    """

    name: ClassVar[str] = "grad_nonfinite"
    moments: ClassVar[tuple[Moment, ...]] = (NonFiniteCount(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """The count.

        Args:
            count: How many entries there are.
            *moments: The count.
        """
        return moments[0]
