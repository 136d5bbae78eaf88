"""What every quantity is: a name, a measurement in one batch, a way to combine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


class Quantity(ABC):
    """A number measured of a tensor and its gradient.

    A subclass is a frozen dataclass with the facts below, `__call__` and `combine`. It
    measures all tensors of a device at once, on that device, and never asks for a
    number on the host: the monitor does that, once for everything.

    Attributes:
        name: The column of the snapshot and the first segment of the tag.
        degree: The power of c by which the number grows when the gradient is multiplied
            by c: how a loss scale is taken out again.
        trusted: The smallest and largest result that can be relied on when accumulated
            in float32; a result outside is measured again in float64.
    """

    name: ClassVar[str]
    degree: ClassVar[int] = 1
    trusted: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    @abstractmethod
    def __call__(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, " n"]:
        """Measure n tensors of one device.

        Args:
            values: The n tensors.
            grads: Their gradients.
            dtype: The least precise dtype to accumulate in.

        Returns:
            One number for each, on their device.
        """

    @abstractmethod
    def combine(self, numbers: Sequence[float]) -> float:
        """The number of a layer, or of the whole model, from those of its parameters.

        Args:
            numbers: What `__call__` measured, at least one.
        """
