"""grad_output is read in the wrong order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from torch import Tensor

from gradlab.subject import Mismatch

from ._axes import Rearrangement, flipped, permuted, reinterpreted
from ._evidence import Evidence, evidence
from ._unreduced import Unreduced


@dataclass(frozen=True)
class MisreadGradOutput:
    """x̄ = (∂y/∂x)ᵀ P ȳ with P another order of ȳ's axes or entries."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        for j, v in enumerate(seen.cotangents[0]):
            for what, move in chain(
                permuted(v.shape), reinterpreted(v.shape), flipped(v.shape)
            ):
                if _is_a_move_of_the_gradient(seen, move):
                    continue
                if seen.explained_by(lambda i, j=j, move=move: _read(seen, i, j, move)):
                    if Unreduced()(mismatch):
                        return None
                    of = f" {j}" if len(seen.cotangents[0]) > 1 else ""
                    return f"grad_output{of} is misread: it {_plainly(what)}"
        return None


def _plainly(what: str) -> str:
    return "is transposed" if what.endswith("(1, 0)") and "has" in what else what


def _is_a_move_of_the_gradient(seen: Evidence, move: Rearrangement) -> bool:
    """Whether the same holds of the gradient: `Transposed` says that more simply."""
    try:
        return seen.matches(0, move(seen.expected[0]))
    except (RuntimeError, IndexError):
        return False


def _read(seen: Evidence, i: int, j: int, move: Rearrangement) -> Tensor | None:
    cotangents = list(seen.cotangents[i])
    cotangents[j] = move(cotangents[j])
    return seen.true(cotangents)
