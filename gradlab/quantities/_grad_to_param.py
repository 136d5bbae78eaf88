"""The gradient's norm over the parameters', ‖g‖ / ‖w‖: a plain step's relative size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Quantity, ratio


@dataclass(frozen=True)
class GradToParam(Quantity):
    """The norm of the gradient relative to that of the parameters.

    Example:
        >>> import torch
        >>> GradToParam()(*torch.tensor([2.0, 1.0, 4.0]))
        tensor(0.2500)
    """

    name: ClassVar[str] = "grad_to_param"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(), Norm("value"))

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """‖g‖ / ‖w‖; infinite where all parameters are zero and the gradient is not.

        Args:
            count: How many entries there are.
            *moments: The norms of the gradient and of the values.
        """
        return ratio(*moments)
