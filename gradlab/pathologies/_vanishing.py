"""The gradient shrinks from layer to layer on its way to the input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._depth import Profile, Slope, slope, steady
from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology


def measured(history: History) -> str:
    """The rms that a history has: of the gradients of parameters, or of outputs.

    Args:
        history: The run.
    """
    return "grad_rms" if "grad_rms" in history.quantities else "output_grad_rms"


def steepest(history: History, recent: int, sign: int) -> tuple[Profile, Slope] | None:
    """The profile of log₁₀ rms over depth that changes most.

    Args:
        history: The run.
        recent: Over how many of the last readings each layer's median is taken.
        sign: 1 for a gradient that shrinks towards the input, −1 for one that grows.
    """
    rms = history.last(measured(history), recent)
    found: list[tuple[Profile, Slope]] = []
    for profile in history.profiles:
        with np.errstate(divide="ignore"):
            heights = np.log10(median(rms[:, profile.rows]))
        fit = slope(heights)
        if fit is not None and profile.part == "outputs":
            # Rms of outputs of other sizes are hard to compare: count on no jump.
            span = steady(heights) * fit.span / fit.slope if fit.slope else 0.0
            fit = fit._replace(span=min(fit.span, span, key=abs))
        if fit is not None:
            found.append((profile, fit))
    return max(found, key=lambda pair: sign * pair[1].span, default=None)


def factor_at_the_start(history: History, profile: Profile) -> float:
    """What a layer multiplied the gradient by in the first readings; NaN if unknown.

    Args:
        history: The run.
        profile: Which layers.
    """
    rms = history.start(measured(history))[:, profile.rows]
    with np.errstate(divide="ignore"):
        fit = slope(np.log10(median(rms)))
    return math.nan if fit is None else 10**-fit.slope


@dataclass(frozen=True)
class Vanishing(Pathology):
    """The rms of the gradient falls towards the input, the same factor every layer.

    The factor is the Theil-Sen slope of log₁₀ rms over the depth, among weights, biases
    or outputs of one kind. Nothing is said unless the confidence interval of the factor
    ends below `band`, which healthy networks stay above.

    Attributes:
        band: The largest factor a layer, towards the input, that is too small.
        ratio: The largest ratio of the first layer's gradient to the last one's.
        ratio_of_outputs: The same of the gradients of outputs, which shrink in a
            healthy network too where many positions lead to one.
        recent: How many readings are judged together.
    """

    band: float = 0.85
    ratio: float = 0.01
    ratio_of_outputs: float = 0.002
    recent: int = 8

    code: ClassVar[str] = "vanishing"
    needs: ClassVar[tuple[str, ...]] = ("grad_rms",)
    instead: ClassVar[tuple[str, ...]] = ("output_grad_rms",)
    follows: ClassVar[tuple[str, ...]] = (
        "non_finite",
        "dead_units",
        "saturated_units",
        "underflow",
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
        found = steepest(history, self.recent, 1)
        if found is None:
            return None
        profile, fit = found
        factor, ratio = 10**-fit.slope, 10**-fit.span
        least = self.ratio_of_outputs if profile.part == "outputs" else self.ratio
        if 10**-fit.low > self.band or ratio > least:
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
            f"the gradient shrinks ×{factor:.2g} a layer towards the input; {names[0]} "
            f"gets {ratio:.1g} of what {names[-1]} gets",
            layers=names,
            evidence=evidence,
            causes=(
                "activations that saturate (sigmoid, tanh) have a derivative below 1",
                "initial weights too small for the depth: the gain of a layer is below "
                "1",
                "many layers without a skip connection or a normalization",
            ),
            experiment="ReLU with He's initialization (or a skip connection around "
            "each layer), all else the same: the factor should come near 1",
            confidence=min(0.99, 0.6 + 0.1 * math.log10(least / ratio + 1)),
            level=1 / ratio if ratio else math.inf,
        )
