"""The gradient's Euclidean norm, ‖g‖ = √Σᵢ|gᵢ|², as `clip_grad_norm_` defines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Quantity


@dataclass(frozen=True)
class GradNorm(Quantity):
    """The Euclidean norm of the gradient.

    Example:
        >>> import torch
        >>> GradNorm()(*torch.tensor([2.0, 5.0]))
        tensor(5.)
    """

    name: ClassVar[str] = "grad_norm"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """The norm.

        Args:
            count: How many entries there are.
            *moments: The norm.
        """
        return moments[0]
