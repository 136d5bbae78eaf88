"""The update's norm over the parameters', ‖Δw‖ / ‖w‖: how far a step moves a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity, ratio


@dataclass(frozen=True)
class UpdateRatio(Quantity):
    """What the optimizer added to the parameters, relative to them.

    About 1e-3 in many healthy runs (Karpathy). It is measured of the weights, whatever
    the optimizer.

    Example:
        >>> import torch
        >>> UpdateRatio()(*torch.tensor([2.0, 0.1, 10.0]))
        tensor(0.0100)
    """

    name: ClassVar[str] = "update_ratio"
    feed: ClassVar[Feed] = "update"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(), Norm("value"))

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """‖Δw‖ / ‖w‖; infinite where all parameters were zero and moved.

        Args:
            count: How many entries there are.
            *moments: The norms of the update and of the parameters before it.
        """
        return ratio(*moments)
