"""The cosine of the gradient and the one before: 1 steady, 0 noise, −1 bouncing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Dot, Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class GradCosine(Quantity):
    """The cosine of the angle between the gradient and the one that was read before it.

    Example:
        >>> import torch
        >>> GradCosine()(*torch.tensor([2.0, 2.0, 1.0, 2.0]))
        tensor(1.)
    """

    name: ClassVar[str] = "grad_cosine"
    feed: ClassVar[Feed] = "previous"
    moments: ClassVar[tuple[Moment, ...]] = (Dot(), Norm("value"), Norm())

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """⟨g₋, g⟩ / ‖g₋‖ ‖g‖; NaN where one of them is zero.

        Args:
            count: How many entries there are.
            *moments: The inner product, the norms of the last gradient and this one.
        """
        product, before, now = moments
        return product / (before * now)
