"""The share of a module's units that took no part in the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._activation_moments import InactiveCount, UnitCount
from ._moment import Moment
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class DeadUnits(Quantity):
    """The share of units with no nonzero output or no nonzero gradient in the step.

    A unit is an index of the last dimension of a Linear-like output, a channel of a
    convolution-like one. Of a ReLU the output of a dead unit is 0; of the linear layer
    before it, its gradient. One batch does not make a unit dead: the monitor's
    `dead_units` remembers when each was last active.

    The share is exact. Of an output of more than 8192 entries a sample is looked at
    first, which mostly has no zero; where it has one, nothing is said in this reading,
    and from the next on all of the module's outputs are looked at.

    Args:
        window: After how many steps without activity the monitor calls a unit dead.

    Example:
        >>> import torch
        >>> DeadUnits()(*torch.tensor([64.0, 1.0, 4.0]))
        tensor(0.2500)
    """

    window: int = 100
    name: ClassVar[str] = "dead_units"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (InactiveCount(), UnitCount())

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """Inactive units over units; 0 where there are none.

        Args:
            count: How many entries the outputs of the step have.
            *moments: The number of inactive units, and of all.
        """
        inactive, units = moments
        return inactive / units.clamp(min=1)
