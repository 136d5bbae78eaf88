"""What clipping left of the gradient, ‖clipped g‖ / ‖g‖: 1 where it did nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity, ratio


@dataclass(frozen=True)
class ClipCoefficient(Quantity):
    """The norm of the gradient after clipping, relative to that before.

    Of `clip_grad_norm_` it is the factor min(1, max_norm / ‖g‖), the same in every row;
    clipping by value treats each layer differently. It is measured where the monitor is
    told when clipping begins.

    Example:
        >>> import torch
        >>> ClipCoefficient()(*torch.tensor([2.0, 4.0, 1.0]))
        tensor(0.2500)
    """

    name: ClassVar[str] = "clip_coefficient"
    feed: ClassVar[Feed] = "clipping"
    moments: ClassVar[tuple[Moment, ...]] = (Norm("value"), Norm())

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """‖clipped g‖ / ‖g‖; 1 where the gradient is zero.

        Args:
            count: How many entries there are.
            *moments: The norms before clipping and after it.
        """
        before, after = moments
        return ratio(after, before) + (before == 0) * (after == 0)
