"""The signal grows beyond all bounds on its way to the output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._depth import layer_of
from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology


@dataclass(frozen=True)
class ExplodingActivations(Pathology):
    """What reaches the last layer is thousands of times what enters the first.

    The gradients tell it without a look at the activations: with y = W x + b and ȳ the
    gradient of y, those of a layer are W̄ = ȳ xᵀ and b̄ = ȳ, so rms W̄ / rms b̄ is about
    the rms of x. A recurrent layer with a gain above 1 shows in this and in no profile
    over depth: it is one layer. A bias before a normalization has no gradient but
    rounding: the last bias counts only if no parameter comes after it.

    Attributes:
        ratio: The smallest ratio of the last layer's input to the first one's that is
            too large.
        recent: For how many readings in a row.
    """

    ratio: float = 1000.0
    recent: int = 8

    code: ClassVar[str] = "exploding_activations"
    needs: ClassVar[tuple[str, ...]] = ("grad_rms",)
    follows: ClassVar[tuple[str, ...]] = (
        "non_finite",
        "exploding",
        "update_too_large",
        "sudden_growth",
    )

    def __call__(self, history: History) -> Finding | None:
        """Compare the first layer that has a bias with the last one.

        Args:
            history: The run.
        """
        pairs = history.pairs
        if len(history) < self.recent or len(pairs) < 2:
            return None
        (first, of_first), (last, of_last) = pairs[0], pairs[-1]
        if of_last != history.parameters[-1]:
            return None
        rms = history.last("grad_rms", self.recent)
        with np.errstate(divide="ignore", invalid="ignore"):
            enters = rms[:, first] / rms[:, of_first]
            reaches = rms[:, last] / rms[:, of_last]
            ratios = reaches / enters
        if not (np.isfinite(ratios) & (ratios > self.ratio)).all():
            return None
        middle = float(median(ratios))
        names = history.rows[first].name, history.rows[last].name
        begin, end = (layer_of(history.rows[i]) for i in (first, last))
        return Finding(
            self.code,
            history.step,
            f"the signal grows on its way: what {end} is given is {middle:.2g} times "
            f"as large as what {begin} is",
            layers=names[::-1],
            evidence={
                "last_over_first": middle,
                "into_the_first": float(median(enters)),
                "into_the_last": float(median(reaches)),
            },
            causes=(
                "a recurrent layer whose spectral radius is above 1",
                "initial weights too large for the depth",
                "inputs that are far smaller than unit variance",
                "skip connections that add up, without a normalization after them",
            ),
            experiment="recurrent weights that are orthogonal, or the initial weights "
            "divided by 3: the ratio should come down",
            confidence=min(0.95, 0.5 + 0.1 * math.log10(middle)),
            level=middle,
        )
