"""Gradients rounded to zero in float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology

TINY = 2.0**-24


@dataclass(frozen=True)
class Underflow(Pathology):
    """Zeros in the gradient, next to entries hardly above float16's smallest number.

    Float16 ends at 2⁻²⁴ ≈ 6e-8: half of that and less is zero. The rms of the entries
    that are not zero is then of that size, which no other cause of zeros explains.

    Attributes:
        share: The smallest share of zeros.
        above: The largest rms of the others, in units of 2⁻²⁴.
        recent: For how many readings.
    """

    share: float = 0.1
    above: float = 32.0
    recent: int = 8

    code: ClassVar[str] = "underflow"
    needs: ClassVar[tuple[str, ...]] = ("grad_zeros", "grad_rms")
    follows: ClassVar[tuple[str, ...]] = (
        "dead_units",
        "update_too_large",
        "sudden_growth",
    )

    def __call__(self, history: History) -> Finding | None:
        """Look at the weights of the last readings.

        Args:
            history: The run.
        """
        if len(history) < self.recent or not len(history.weights):
            return None
        zeros = median(history.last("grad_zeros", self.recent)[:, history.weights])
        rms = median(history.last("grad_rms", self.recent)[:, history.weights])
        # A rms below 2⁻²⁴ of what is not zero cannot have been float16.
        with np.errstate(divide="ignore", invalid="ignore"):
            others = rms / np.sqrt(1 - zeros) / TINY
        hit = (zeros >= self.share) & (others >= 0.99) & (others <= self.above)
        # A network that was trained to the end has such gradients in float32, without
        # the zeros; one layer may have them by chance.
        alive = rms > 0
        if hit.sum() < max(1, 0.5 * alive.sum()):
            return None
        names = tuple(history.rows[i].name for i in history.weights[hit])
        return Finding(
            self.code,
            history.step,
            f"gradients underflow: in {hit.sum()} of {len(hit)} weights "
            f"{np.median(zeros[hit]):.0%} of the entries are zero, and the others "
            f"{np.median(others[hit]):.2g} times the smallest number of float16",
            layers=names,
            evidence={
                "share_of_zeros": float(np.median(zeros[hit])),
                "rms_of_the_others": float(np.median(others[hit]) * TINY),
                "weights": float(hit.sum()),
            },
            causes=(
                "float16 without a loss scale, or with one that is too small",
                "a loss that is divided by a large number before the backward pass",
            ),
            experiment="a loss scale of 2^16 (torch.amp.GradScaler), or bfloat16",
            confidence=0.85,
            level=float(hit.sum()),
        )
