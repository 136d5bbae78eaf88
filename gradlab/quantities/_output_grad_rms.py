"""The root mean square of the gradient of a module's output, √(Σᵢ|∂L/∂yᵢ|² / n)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class OutputGradRMS(Quantity):
    """The root mean square of ∂L/∂y: over depth, how the gradient vanishes or explodes.

    With a mean loss it shrinks with the batch and the number of microbatches: compare
    the modules of one step, or the steps of one run.

    Example:
        >>> OutputGradRMS()(4, 6.0)
        3.0
    """

    name: ClassVar[str] = "output_grad_rms"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(),)

    def __call__(self, count: int, *moments: float) -> float:
        """‖∂L/∂y‖ / √n; 0 where there are no entries.

        Args:
            count: How many entries the outputs of the step have.
            *moments: The norm of their gradients.
        """
        return moments[0] / math.sqrt(count) if count else 0.0
