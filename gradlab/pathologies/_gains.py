"""Which factor made the gradient vanish or explode: weights or activations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._depth import Array


class Shares(NamedTuple):
    """What multiplied the gradient between the last module and the first, as log₁₀.

    Attributes:
        weights: The product of the gains of modules with weights.
        activations: That of the gains of activation functions.
        others: All else: functions that are no modules, skip connections.
    """

    weights: float
    activations: float
    others: float

    @property
    def total(self) -> float:
        """log₁₀ of the gradient's rms at the first module over that at the last."""
        return self.weights + self.activations + self.others

    @property
    def guilty(self) -> str | None:
        """Who did two thirds of it, of those that pull the same way as the total.

        None where nobody did so much, or the total is less than a factor of ten.

        Example:
            >>> Shares(-0.1, -3.6, 0.0).guilty
            'activations'
        """
        if not 1 <= abs(self.total) < np.inf:
            return None
        pulls = {n: max(s * self.total, 0.0) for n, s in self._asdict().items()}
        most = max(pulls, key=lambda name: pulls[name])
        return most if pulls[most] >= 2 / 3 * sum(pulls.values()) else None


def shares(rms: Array, weight_gain: Array, activation_gain: Array) -> Shares:
    """Take the gradient of a step apart into its factors.

    A gain that is not available, or not finite and positive, counts among the others.

    Args:
        rms: `output_grad_rms` of modules in the order of the forward.
        weight_gain: `weight_gain` of the same.
        activation_gain: `activation_gain` of the same.

    Returns:
        The shares; of modules that follow each other without a branch, others is 0.
    """

    def over_depth(gains: Array) -> float:
        # The first module's gain lies before its own output.
        gains = gains[1:]
        usable = np.isfinite(gains) & (gains > 0)
        return float(np.log10(gains[usable]).sum())

    with np.errstate(divide="ignore", invalid="ignore"):
        total = float(np.log10(rms[0] / rms[-1]))
    weights, activations = over_depth(weight_gain), over_depth(activation_gain)
    return Shares(weights, activations, total - weights - activations)
