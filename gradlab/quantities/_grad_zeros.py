"""The share of the gradient that is exactly zero: dead units, or underflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._exponents import ZeroCount
from ._moment import Moment
from ._quantity import Quantity


@dataclass(frozen=True)
class GradZeros(Quantity):
    """The share of entries of the gradient that are exactly zero.

    Of a tensor of more than 4096 entries it is an estimate from as many at least, off
    by some per cent; counting all costs a slow pass over all gradients.

    Example:
        >>> import torch
        >>> GradZeros()(*torch.tensor([8.0, 2.0]))
        tensor(0.2500)
    """

    name: ClassVar[str] = "grad_zeros"
    moments: ClassVar[tuple[Moment, ...]] = (ZeroCount(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """Zeros over entries; 0 where there are none.

        Args:
            count: How many entries there are.
            *moments: The number of zeros.
        """
        return moments[0] / count.clamp(min=1)
