"""The gradient norm of every layer of one run, at its first and its last step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VANISHES = 1e-3
"""First layer's norm over the last layer's, at or below which a gradient vanishes."""
REACHES = 0.1
"""The same, at or above which it reaches the input."""


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """Gradient norms against depth: what a table, a sentence and a picture need.

    Attributes:
        activation: as "Sigmoid".
        initialisation: of the weights, as "N(0, 1/n)".
        start: norms at `first_step`, one a layer, the layer nearest the input first.
        end: the same at `last_step`.
        first_step: the first step that was logged.
        last_step: the last one.
        accuracy: on the validation data after training; None when it was not measured.
        chance: the accuracy of guessing.
    """

    activation: str
    initialisation: str
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    first_step: int
    last_step: int
    accuracy: float | None
    chance: float

    @property
    def label(self) -> str:
        """The network in two words, as "Sigmoid, N(0, 1/n)"."""
        return f"{self.activation}, {self.initialisation}"

    @property
    def ratio(self) -> float:
        """First layer's norm over the last layer's, at the first step."""
        return _ratio(self.start)

    @property
    def end_ratio(self) -> float:
        """First layer's norm over the last layer's, at the last step."""
        return _ratio(self.end)

    @property
    def finding(self) -> str:
        """What the gradient does on its way to the input, at the first step.

        Example:
            >>> norms = np.array([1e-5, 1e-2, 1.0])
            >>> DepthProfile("Sigmoid", "He", norms, norms, 0, 9, None, 0.1).finding
            'vanishes'
        """
        ratio = self.ratio
        if not np.isfinite(ratio):
            return "is not finite, or is zero, at an end of the network"
        if ratio <= VANISHES:
            return "vanishes"
        if ratio < REACHES:
            return "shrinks towards the input"
        if ratio <= 1 / REACHES:
            return "reaches the input"
        return "grows towards the input"


def _ratio(norms: NDArray[np.float64]) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(norms[0] / norms[-1])
