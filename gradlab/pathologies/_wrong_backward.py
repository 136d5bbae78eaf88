"""A hand-written backward that is not the gradient, at the numbers of this run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._finding import Finding
from ._history import History
from ._pathology import Pathology


@dataclass(frozen=True)
class WrongBackward(Pathology):
    """An explicit backward is further from its reference than rounding explains.

    The ratio of the two is below 1 where the backward is as accurate as autograd of the
    reference in the same dtype. A backward that is off by `far` is said at once; one
    that is off by `ratio` only, when it was so in several readings: one reading may be
    close to a kink.

    Attributes:
        error: The smallest relative error; below it a gradient is approximate, at most.
        ratio: The smallest ratio, if it lasts.
        lasting: In how many readings at least, and in half of those that are kept.
        far: The smallest ratio that is said at once.
    """

    error: float = 1e-3
    ratio: float = 8.0
    lasting: int = 3
    far: float = 32.0

    code: ClassVar[str] = "wrong_backward"
    needs: ClassVar[tuple[str, ...]] = (
        "gradcheck_error",
        "gradcheck_cosine",
        "gradcheck_ratio",
    )
    every: ClassVar[int] = 1

    def __call__(self, history: History) -> Finding | None:
        """Look at the last readings of each call site.

        Args:
            history: The run.
        """
        errors = history.last("gradcheck_error")
        ratios = history.last("gradcheck_ratio")
        # NaN, where there was nothing to compare, is no hit.
        hits = (errors >= self.error) & (ratios >= self.ratio)
        far = np.any(hits & (ratios >= self.far), axis=0)
        times, seen = hits.sum(0), np.isfinite(errors).sum(0)
        wrong = np.flatnonzero(far | ((times >= self.lasting) & (2 * times >= seen)))
        if not len(wrong):
            return None
        largest = np.where(hits, errors, -np.inf)
        order = wrong[np.argsort(-largest[:, wrong].max(0), kind="stable")]
        worst = int(order[0])
        when = int(largest[:, worst].argmax())
        error = float(errors[when, worst])
        ratio = float(ratios[when, worst])
        cosine = float(history.last("gradcheck_cosine")[when, worst])
        row = history.rows[worst]
        return Finding(
            self.code,
            history.step,
            f"the hand-written backward of {row.note or row.name} drifts: relative "
            f"error {error:.2g}, cosine {cosine:.3g}, {ratio:.2g} times what rounding "
            "explains",
            layers=tuple(history.rows[i].name for i in order.tolist()),
            evidence={
                "relative_error": error,
                "cosine": cosine,
                "ratio": ratio,
                "readings": float(times[worst]),
            },
            causes=_causes(error, cosine, bool(far[worst])),
            experiment="gradlab.gradcheck of the Function at inputs of this size, "
            "which says where the gradient is wrong and why",
            confidence=0.95 if far[worst] else 0.8,
            level=error,
        )


def _causes(error: float, cosine: float, far: bool) -> tuple[str, ...]:
    if not np.isfinite(error):
        return (
            "NaN or infinity where the reference is finite: an overflow, 0/0 or a root "
            "at 0 in the backward",
            "a gradient for an input that the output does not depend on, or one chosen "
            "where the true one is 0 (straight-through): register it with a reference "
            "that has it",
        )
    if cosine < -0.5:
        return ("a sign", "a term that outweighs the others has the wrong sign")
    if cosine > 0.999 and error > 0.1:
        return ("a constant factor: a mean for a sum, a missing 1/n or 2",)
    missing = "a term or a branch that is wrong for inputs that only this run has"
    half = "sums or squares in half precision: compute them in float32, cast at the end"
    return (missing, half) if far else (half, missing)
