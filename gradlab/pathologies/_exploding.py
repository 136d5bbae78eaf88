"""The gradient grows from layer to layer on its way to the input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ._finding import Finding
from ._history import History
from ._pathology import Pathology
from ._vanishing import factor_at_the_start, steepest


@dataclass(frozen=True)
class Exploding(Pathology):
    """The rms of the gradient grows towards the input, the same factor every layer.

    Attributes:
        band: The smallest factor a layer, towards the input, that is too large: the
            whole confidence interval must lie above it.
        ratio: The smallest ratio of the first layer's gradient to the last one's.
        recent: How many readings are judged together.
    """

    band: float = 1.2
    ratio: float = 100.0
    recent: int = 4

    code: ClassVar[str] = "exploding"
    needs: ClassVar[tuple[str, ...]] = ("grad_rms",)
    instead: ClassVar[tuple[str, ...]] = ("output_grad_rms",)
    follows: ClassVar[tuple[str, ...]] = (
        "non_finite",
        "dead_units",
        "update_too_large",
        "sudden_growth",
    )
    every: ClassVar[int] = 8

    def __call__(self, history: History) -> Finding | None:
        """Look at the profile of the last readings.

        Args:
            history: The run.
        """
        if len(history) < self.recent:
            return None
        found = steepest(history, self.recent, -1)
        if found is None:
            return None
        profile, fit = found
        factor, ratio = 10**-fit.slope, 10**-fit.span
        if 10**-fit.high < self.band or ratio < self.ratio:
            return None
        names = tuple(history.rows[i].name for i in profile.rows)
        evidence = {
            "factor_a_layer": factor,
            "from": 10**-fit.high,
            "to": 10**-fit.low,
            "first_over_last": ratio,
            "factor_at_the_start": factor_at_the_start(history, profile),
            "layers": float(len(names)),
        }
        return Finding(
            self.code,
            history.step,
            f"the gradient grows ×{factor:.2g} a layer towards the input; {names[0]} "
            f"gets {ratio:.1g} times what {names[-1]} gets",
            layers=names,
            evidence=evidence,
            causes=(
                "initial weights too large for the depth: the gain of a layer is "
                "above 1",
                "weights that grew in training: the learning rate, or no weight decay",
                "no normalization in a deep network",
            ),
            experiment="the initialization that belongs to the activation (He for "
            "ReLU, Glorot for tanh), all else the same: the factor should come near 1",
            confidence=min(0.99, 0.6 + 0.1 * math.log10(ratio / self.ratio + 1)),
            level=ratio,
        )
