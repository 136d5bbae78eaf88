"""The largest loss scale that leaves float16 room above the largest gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ._moment import Moment
from ._moments import LargestMagnitude
from ._quantity import Quantity


@dataclass(frozen=True)
class SuggestedLossScale(Quantity):
    """The largest power of two that keeps max |g| below float16's 65504 / 2ᵐ.

    Every octave of scale lifts one more octave of small entries into the range of the
    format, so the largest safe one is the best. That of the total fits all layers;
    where the layers' own are many octaves apart, no scale fits all, and bfloat16 is
    the way out. It is measured of the gradients of parameters: those of activations
    can be larger, which is part of what the margin is for.

    Args:
        margin: m, the octaves kept free for larger gradients to come.

    Example:
        >>> SuggestedLossScale()(*torch.tensor([8.0, 0.5]))
        tensor(4096.)
    """

    margin: int = 4
    name: ClassVar[str] = "suggested_loss_scale"
    moments: ClassVar[tuple[Moment, ...]] = (LargestMagnitude(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """2^⌊log₂(65504 / 2ᵐ / max |g|)⌋; infinite where all is zero, 0 of infinity.

        Args:
            count: How many entries there are.
            *moments: The largest magnitude.
        """
        room = torch.finfo(torch.float16).max / 2**self.margin
        return (room / moments[0]).log2().floor().exp2()
