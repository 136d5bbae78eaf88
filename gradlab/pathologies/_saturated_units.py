"""Activations that lie on the flat parts of their function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._finding import Finding
from ._history import History, median
from ._pathology import Pathology


@dataclass(frozen=True)
class SaturatedUnits(Pathology):
    """Most outputs of a tanh or a sigmoid are where its derivative is nearly zero.

    The output of the whole model may be so, a sure classifier's is: the last module is
    not judged.

    Attributes:
        share: The smallest share of saturated outputs.
        recent: For how many readings in a row.
    """

    share: float = 0.6
    recent: int = 8

    code: ClassVar[str] = "saturated_units"
    needs: ClassVar[tuple[str, ...]] = ("saturation",)
    follows: ClassVar[tuple[str, ...]] = (
        "non_finite",
        "update_too_large",
        "sudden_growth",
    )

    def __call__(self, history: History) -> Finding | None:
        """Look at the modules in the order of the forward pass.

        Args:
            history: The run.
        """
        if len(history) < self.recent:
            return None
        kept = history.last("saturation", self.recent)
        modules = [i for i, row in enumerate(history.rows) if row.kind == "layer"]
        hit = [i for i in modules[:-1] if (kept[:, i] >= self.share).all()]
        if not hit:
            return None
        first = hit[0]
        share = float(median(kept)[first])
        start = float(median(history.start("saturation"))[first])
        judged = int(np.isfinite(kept[-1]).sum())
        name = history.rows[first].name
        return Finding(
            self.code,
            history.step,
            f"{share:.0%} of the outputs of {name} are on the flat part of its "
            f"function, in each of the last {self.recent} readings",
            layers=tuple(history.rows[i].name for i in hit),
            evidence={
                "saturated": share,
                "at_the_start": start,
                "modules": float(len(hit)),
                "of": float(judged),
            },
            causes=(
                "inputs that are not scaled to unit variance"
                if first == modules[0] or len(hit) < judged / 2
                else "initial weights too large",
                "weights that grew: a learning rate too large, no weight decay",
            ),
            experiment="the inputs divided by their standard deviation"
            if len(hit) < judged / 2
            else "the initial weights divided by 3",
            confidence=0.85,
            level=float(len(hit)),
        )
