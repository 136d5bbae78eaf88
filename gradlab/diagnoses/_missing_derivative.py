"""The backward passes grad_output on as if the forward were the identity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import evidence
from ._missing_eps import MissingEps
from ._missing_term import MissingTerm


@dataclass(frozen=True)
class MissingDerivative:
    """x̄ = ȳ: the local derivative ∂y/∂x is not in it."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        for j in range(len(seen.cotangents[0])):

            def proposal(i: int, j: int = j) -> Tensor:
                return seen.cotangents[i][j]

            if seen.explained_by(proposal):
                if MissingTerm()(mismatch) or MissingEps()(mismatch):
                    return None
                return (
                    "the local derivative is missing: the gradient is grad_output "
                    "itself, as if the forward were the identity"
                )
        return None
