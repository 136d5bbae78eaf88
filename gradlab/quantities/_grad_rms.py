"""The gradient's root mean square, √(Σᵢ|gᵢ|² / n): a norm that sizes do not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Quantity


@dataclass(frozen=True)
class GradRMS(Quantity):
    """The root mean square of the gradient: comparable between tensors of other sizes.

    Example:
        >>> import torch
        >>> GradRMS()(*torch.tensor([4.0, 6.0]))
        tensor(3.)
    """

    name: ClassVar[str] = "grad_rms"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """‖g‖ / √n; 0 where there are no entries.

        Args:
            count: How many entries there are.
            *moments: The norm of the gradient.
        """
        return moments[0] / count.clamp(min=1).sqrt()
