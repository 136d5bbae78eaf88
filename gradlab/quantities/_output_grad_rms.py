"""The root mean square of the gradient of a module's output, √(Σᵢ|∂L/∂yᵢ|² / n)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class OutputGradRMS(Quantity):
    """The root mean square of ∂L/∂y: over depth, how the gradient vanishes or explodes.

    With a mean loss it shrinks with the batch and the number of microbatches: compare
    the modules of one step, or the steps of one run. Of an output of more than 8192
    entries it is estimated from a sample of them, right to some per cent.

    Example:
        >>> import torch
        >>> OutputGradRMS()(*torch.tensor([4.0, 6.0]))
        tensor(3.)
    """

    name: ClassVar[str] = "output_grad_rms"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """‖∂L/∂y‖ / √n; 0 where there are no entries.

        Args:
            count: How many entries the outputs of the step have.
            *moments: The norm of their gradients.
        """
        return moments[0] / count.clamp(min=1).sqrt()
