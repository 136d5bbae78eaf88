"""Parameters that no gradient reaches while others get one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._finding import Finding
from ._history import History
from ._pathology import Pathology


@dataclass(frozen=True)
class Disconnected(Pathology):
    """A parameter without a gradient (None) for many readings while others have one.

    A parameter that was frozen before the first reading is nobody's business; one that
    is frozen later is seen, and so is one that was never connected.

    Attributes:
        recent: For how many readings in a row.
    """

    recent: int = 12

    code: ClassVar[str] = "disconnected"
    needs: ClassVar[tuple[str, ...]] = ("grad_norm",)

    def __call__(self, history: History) -> Finding | None:
        """Look at what was available in the last readings.

        Args:
            history: The run.
        """
        if len(history) < self.recent:
            return None
        there = history.available("grad_norm", self.recent)
        if not (history.last("grad_norm", self.recent)[:, history.total()] > 0).all():
            return None
        rows = history.parameters
        cut = rows[~np.any(there[:, rows], axis=0)].tolist()
        if not cut or len(cut) == len(rows):
            return None
        once = np.any(history.available("grad_norm"), axis=0)
        started = np.any(np.isfinite(history.start("grad_norm")), axis=0)
        names = tuple(history.rows[i].name for i in cut)
        lost = sum(bool(once[i] or started[i]) for i in cut)
        what = f"{names[0]} and {len(cut) - 1} more" if len(cut) > 1 else names[0]
        had = (
            "had a gradient and has none any more"
            if lost == len(cut)
            else "never had a gradient"
            if lost == 0
            else "have no gradient"
        )
        causes = (
            ("requires_grad_(False) after the start: frozen, on purpose or not",)
            if lost
            else ()
        ) + (
            "a detach(), .data, no_grad or .item() between it and the loss",
            "it is not used in the forward pass that is trained",
        )
        return Finding(
            self.code,
            history.step,
            f"{what}: {had}, for {self.recent} readings, while others train",
            layers=names,
            evidence={
                "without_gradient": float(len(cut)),
                "of": float(len(rows)),
                "had_one": float(lost),
            },
            causes=causes,
            experiment=f"torch.autograd.grad(loss, {names[-1]}): the error "
            "says whether it is in the graph",
            confidence=0.7 if lost else 0.9,
            level=float(len(cut)),
        )
