"""A layer whose gradient has no direction, while that of the others has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._finding import Finding
from ._history import History
from ._pathology import Pathology


@dataclass(frozen=True)
class NoiseDominated(Pathology):
    """The cosine of each gradient of a layer to the one before is 0, as that of noise.

    It wanders on a plateau. A whole network does so when its loss is down, or when its
    batch is small, and may be healthy; one layer that does so among others that have a
    direction gets noise for a gradient. Below 0 the steps of a layer bounce: that is
    large, not noisy.
    The first weight is not judged alone: the words of an embedding come and go.

    Attributes:
        cosine: The largest mean cosine that is noise: its confidence interval, mean ±
            2 σ / √n, must lie between −`cosine` and `cosine`.
        signal: The smallest median of the other weights' means.
        recent: Over how many readings.
    """

    cosine: float = 0.05
    signal: float = 0.15
    recent: int = 24

    code: ClassVar[str] = "noise_dominated"
    needs: ClassVar[tuple[str, ...]] = ("grad_cosine",)
    follows: ClassVar[tuple[str, ...]] = (
        "non_finite",
        "wrong_backward",
        "dead_units",
        "saturated_units",
        "underflow",
        "update_too_large",
        "sudden_growth",
        "exploding",
        "exploding_activations",
    )

    def __call__(self, history: History) -> Finding | None:
        """Look at the last readings.

        Args:
            history: The run.
        """
        if len(history) < self.recent:
            return None
        cosines = history.last("grad_cosine", self.recent)[:, history.weights]
        there = np.isfinite(cosines)
        judged = there.sum(0) > self.recent / 2
        if judged.sum() < 3:
            return None
        rows = history.weights[judged]
        x = np.where(there, cosines, np.nan)[:, judged]
        mean = np.nanmean(x, axis=0)
        wide = 2 * np.nanstd(x, axis=0) / np.sqrt(self.recent)
        noisy = np.abs(mean) + wide < self.cosine
        noisy[0] &= bool(noisy[1:].any())
        if not noisy.any() or noisy.all():
            return None
        others = float(np.median(mean[~noisy]))
        if others < self.signal:
            return None
        names = tuple(history.rows[i].name for i in rows[noisy])
        return Finding(
            self.code,
            history.step,
            f"the gradient of {names[0]} points elsewhere at every step: its mean "
            f"cosine to the one before is {mean[noisy].mean():.2f} over {self.recent} "
            f"readings, where that of others is {others:.2f}",
            layers=names,
            evidence={
                "cosine": float(mean[noisy].mean()),
                "of_the_others": others,
                "weights": float(noisy.sum()),
                "of": float(len(noisy)),
            },
            causes=(
                f"a backward that is wrong, in {names[0]} or after it",
                "noise beside it: dropout near 1, a sampled gate, an input of noise",
                "inputs of it that are others in every batch: rare words, experts",
            ),
            experiment=f"gradlab.gradcheck on what {names[0]} belongs to; the same "
            "batch twice: the cosine should be 1",
            confidence=0.7,
            level=float(noisy.sum()),
        )
