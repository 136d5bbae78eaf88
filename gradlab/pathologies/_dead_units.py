"""Units that get no gradient at all: dead ReLUs, or a layer cut off by zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ._depth import layer_of
from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology


@dataclass(frozen=True)
class DeadUnits(Pathology):
    """The gradient of nearly all biases of a layer is exactly zero, and stays so.

    A bias has a gradient of zero only if its unit was silent in the whole batch. A
    weight has zeros for many good reasons (an embedding of words that did not occur),
    so a layer without a bias counts only if its gradient is zero altogether.

    Attributes:
        share: The smallest share of silent units.
        recent: For how many readings.
    """

    share: float = 0.9
    recent: int = 10

    code: ClassVar[str] = "dead_units"
    needs: ClassVar[tuple[str, ...]] = ("grad_zeros", "grad_norm")
    follows: ClassVar[tuple[str, ...]] = (
        "non_finite",
        "underflow",
        "update_too_large",
        "sudden_growth",
    )

    def __call__(self, history: History) -> Finding | None:
        """Look at the share of zeros in the last readings.

        Args:
            history: The run.
        """
        if len(history) < self.recent:
            return None
        zeros = history.last("grad_zeros", self.recent)
        norms = history.last("grad_norm", self.recent)[:, history.total()]
        if not (norms > 0).all():
            return None
        # NaN, which is unavailable, is no minimum.
        least = zeros.min(0)
        if not (least[history.parameters] >= self.share).any():
            return None
        with_bias = {layer_of(history.rows[i]) for i in history.biases}
        alone = [
            i for i in history.weights if layer_of(history.rows[i]) not in with_bias
        ]
        dead = [i for i in history.biases if self.share <= least[i] <= 1]
        dead += [i for i in alone if least[i] == 1]
        if not dead:
            return None
        dead.sort()
        last = dead[-1]
        share = float(median(zeros)[last])
        first = history.start("grad_zeros")[0, last]
        where = layer_of(history.rows[last])
        evidence = {
            "share_of_zeros": share,
            "at_the_start": float(first),
            "layers": float(len(dead)),
        }
        return Finding(
            self.code,
            history.step,
            f"{share:.0%} of the units of {where} got a gradient of exactly zero in "
            f"each of the last {self.recent} readings",
            layers=tuple(history.rows[i].name for i in reversed(dead)),
            evidence=evidence,
            causes=(
                "ReLUs that are negative for every input: a bias too negative, or "
                "pushed there by a large step",
                "a factor of zero behind it: weights that are all zero, a mask, a gate",
            ),
            experiment=f"the share of outputs of {where} above 0 on one batch; with a "
            "leaky ReLU its gradient should come back",
            confidence=0.95 if share == 1 else 0.7,
            level=float(len(dead)),
        )
