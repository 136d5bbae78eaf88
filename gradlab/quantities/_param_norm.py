"""The Euclidean norm of the parameters, ‖w‖ = √Σᵢ|wᵢ|²."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Quantity


@dataclass(frozen=True)
class ParamNorm(Quantity):
    """The Euclidean norm of the parameters themselves.

    Example:
        >>> import torch
        >>> ParamNorm()(*torch.tensor([2.0, 5.0]))
        tensor(5.)
    """

    name: ClassVar[str] = "param_norm"
    moments: ClassVar[tuple[Moment, ...]] = (Norm("value"),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """The norm.

        Args:
            count: How many entries there are.
            *moments: The norm of the values.
        """
        return moments[0]
