"""What a layer's weights multiply the gradient by, rms(Wᵀȳ) / rms(ȳ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ._activation_moments import InputGradNorm, is_activation_function
from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class WeightGain(Quantity):
    """The factor by which a layer with weights changes the gradient's rms.

    For y = W x + b with x of n entries and y of m, and ȳ = ∂L/∂y:

        gain = √(Σᵢ (Wᵀȳ)ᵢ² / n) / √(Σⱼ ȳⱼ² / m)

    and for any module that owns parameters and has no children the same with its
    Jacobian J = ∂y/∂x in place of W. With independent weights of variance σ² it is √m σ
    on average (He's initialization by the fan out: √2, which a ReLU's √½ makes 1). Wᵀȳ
    is what comes back through this module only, not what other consumers of x add to
    it, as a skip connection does.

    In a chain of modules the gains of all after one, those of `ActivationGain`
    included, multiply to the output_grad_rms of that one over the last one's. What lies
    between two modules and is none itself, as `F.relu` in a forward, has the factor
    output_grad_rms[before] / (weight_gain · output_grad_rms)[after].

    A module has none if its input needs no gradient (the first layer), is not its first
    positional argument, or is more than a few operations away.

    Example:
        >>> import torch
        >>> WeightGain()(*torch.tensor([4.0, 6.0, 3.0]))
        tensor(2.)
    """

    name: ClassVar[str] = "weight_gain"
    feed: ClassVar[Feed] = "activation"
    moments: ClassVar[tuple[Moment, ...]] = (InputGradNorm(), Norm())

    def moments_of(self, module: nn.Module) -> tuple[Moment, ...] | None:
        """The norms of the gradient before and after a layer that owns weights.

        Args:
            module: The module.
        """
        alone = next(module.children(), None) is None
        return self.moments if alone and not is_activation_function(module) else None

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """rms(Jᵀȳ) / rms(ȳ); NaN where no gradient came back at all.

        Args:
            count: How many entries the outputs of the step have.
            *moments: The norm √(m/n) ‖Jᵀȳ‖, and ‖ȳ‖.
        """
        return moments[0] / moments[1]
