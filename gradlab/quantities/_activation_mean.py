"""The mean of a module's output, Σᵢ yᵢ / n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._activation_moments import Total
from ._moment import Moment
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class ActivationMean(Quantity):
    """The mean of a module's output.

    Of an output of more than 8192 entries it is estimated from a sample of them, right
    to 1.6 % of their standard deviation.

    Example:
        >>> import torch
        >>> ActivationMean()(*torch.tensor([4.0, 6.0]))
        tensor(1.5000)
    """

    name: ClassVar[str] = "activation_mean"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (Total(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """Σ y / n; 0 where there are no entries.

        Args:
            count: How many entries the outputs of the step have.
            *moments: Their sum.
        """
        return moments[0] / count.clamp(min=1)
