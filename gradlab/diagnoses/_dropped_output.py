"""Of several outputs, the gradient of one is lost or taken for another's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import Evidence, evidence


@dataclass(frozen=True)
class DroppedOutput:
    """x̄ = Σⱼ (∂yⱼ/∂x)ᵀ ȳⱼ without one j, or with two ȳⱼ exchanged."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or (count := len(seen.subject.outputs)) < 2:
            return None
        if seen.factor is not None:
            return None
        for j in range(count):
            if seen.explained_by(lambda i, j=j: _scaled(seen, i, j, 0.0)):
                return f"the gradient of output {j} of {count} is dropped"
        for j in range(count):
            if seen.explained_by(lambda i, j=j: _scaled(seen, i, j, -1.0)):
                return f"the gradient of output {j} of {count} has the wrong sign"
        for j, k in combinations(range(count), 2):
            if seen.explained_by(lambda i, j=j, k=k: _exchanged(seen, i, j, k)):
                return f"the gradients of outputs {j} and {k} are exchanged"
        return None


def _scaled(seen: Evidence, i: int, j: int, c: float) -> Tensor | None:
    cotangents = list(seen.cotangents[i])
    cotangents[j] = c * cotangents[j]
    return seen.true(cotangents)


def _exchanged(seen: Evidence, i: int, j: int, k: int) -> Tensor | None:
    cotangents = list(seen.cotangents[i])
    cotangents[j], cotangents[k] = cotangents[k], cotangents[j]
    if cotangents[j].shape != cotangents[k].shape:
        return None
    return seen.true(cotangents)
