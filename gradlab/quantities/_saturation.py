"""The share of a module's outputs on the flat parts of its activation function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ._activation_moments import OutsideCount
from ._moment import Moment
from ._quantity import Feed, Quantity

# The derivative is then below 2 % (tanh, softsign) or 4 % (σ) of its maximum.
_TANH, _SIGMOID, _SOFTSIGN = (-0.99, 0.99), (0.01, 0.99), (-0.859, 0.859)
# What is clamped has exactly the bound's value.
_CLAMPED = 1e-6


@dataclass(frozen=True)
class Saturation(Quantity):
    """The share of outputs where the activation's derivative is nearly 0.

    tanh: |y| > 0.99. σ: y outside 0.01 … 0.99. Softsign: |y| > 0.859. Hard versions: y
    on a bound. Other modules have no saturation; a NaN counts as saturated.
    Of an output of more than 8192 entries it is estimated from a sample of them, right
    to 0.8 percentage points.

    Example:
        >>> import torch
        >>> Saturation()(*torch.tensor([8.0, 2.0]))
        tensor(0.2500)
        >>> Saturation().moments_of(nn.Tanh())
        (OutsideCount(low=-0.99, high=0.99),)
        >>> Saturation().moments_of(nn.Linear(2, 1)) is None
        True
    """

    name: ClassVar[str] = "saturation"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (OutsideCount(*_TANH),)

    def moments_of(self, module: nn.Module) -> tuple[Moment, ...] | None:
        """The count of what is outside the bounds of this module's activation.

        Args:
            module: The module whose output is measured.
        """
        if isinstance(module, nn.Tanh):
            return (OutsideCount(*_TANH),)
        if isinstance(module, nn.Sigmoid):
            return (OutsideCount(*_SIGMOID),)
        if isinstance(module, nn.Softsign):
            return (OutsideCount(*_SOFTSIGN),)
        if isinstance(module, nn.Hardsigmoid):
            return (OutsideCount(_CLAMPED, 1 - _CLAMPED),)
        # ReLU6 is a Hardtanh from 0: at 0 it is sparse, as a ReLU is.
        if isinstance(module, nn.Hardtanh) and not isinstance(module, nn.ReLU6):
            low, high = float(module.min_val), float(module.max_val)
            margin = _CLAMPED * (high - low)
            return (OutsideCount(low + margin, high - margin),)
        return None

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """Saturated outputs over outputs; 0 where there are none.

        Args:
            count: How many entries the outputs of the step have.
            *moments: How many are saturated.
        """
        return moments[0] / count.clamp(min=1)
