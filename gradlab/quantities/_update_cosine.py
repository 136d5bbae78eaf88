"""The cosine of the update and the gradient: −1 for plain SGD, 0 where they part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Dot, Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class UpdateCosine(Quantity):
    """The cosine of the angle between the update and the gradient it was made from.

    Example:
        >>> import torch
        >>> UpdateCosine()(*torch.tensor([2.0, -3.0, 3.0, 1.0]))
        tensor(-1.)
    """

    name: ClassVar[str] = "update_cosine"
    feed: ClassVar[Feed] = "step"
    moments: ClassVar[tuple[Moment, ...]] = (Dot(), Norm("value"), Norm())

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """⟨g, Δw⟩ / ‖g‖ ‖Δw‖; NaN where one of them is zero.

        Args:
            count: How many entries there are.
            *moments: The inner product, the norms of the gradient and the update.
        """
        product, gradient, update = moments
        return product / (gradient * update)
