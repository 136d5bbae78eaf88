"""What an activation function multiplies the gradient by, rms(φ′(x) ⊙ ȳ) / rms(ȳ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ._activation_moments import InputGradNorm, is_activation_function
from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class ActivationGain(Quantity):
    """The factor by which an activation function's derivative changes the gradient.

    For y = φ(x), entry by entry, and ȳ = ∂L/∂y:

        gain = √(Σᵢ (φ′(xᵢ) ȳᵢ)² / n) / √(Σᵢ ȳᵢ² / n)

    and for any module without parameters and children the same with its Jacobian. It is
    at most max|φ′|: ¼ for a sigmoid, 1 for tanh; a ReLU that passes half of its inputs
    has √½. φ′(x) ȳ is what comes back through this module only. An activation that is
    no module, as `F.relu` in a forward, has no row: see `WeightGain`.

    Example:
        >>> import torch
        >>> ActivationGain().moments_of(torch.nn.Linear(2, 1)) is None
        True
        >>> ActivationGain()(*torch.tensor([4.0, 1.5, 6.0]))
        tensor(0.2500)
    """

    name: ClassVar[str] = "activation_gain"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (InputGradNorm(), Norm())

    def moments_of(self, module: nn.Module) -> tuple[Moment, ...] | None:
        """The norms of the gradient before and after an activation function.

        Args:
            module: The module.
        """
        alone = next(module.children(), None) is None
        return self.moments if alone and is_activation_function(module) else None

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """rms(φ′(x) ⊙ ȳ) / rms(ȳ); NaN where no gradient came back at all.

        Args:
            count: How many entries the outputs of the step have.
            *moments: The norm ‖φ′(x) ⊙ ȳ‖, and ‖ȳ‖.
        """
        return moments[0] / moments[1]
