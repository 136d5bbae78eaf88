"""The small number that keeps the forward finite is not in the backward."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradlab.subject import DIFFERENCES, GIVEN, Mismatch, Subject, own_gradient, truth

from ._evidence import Evidence, evidence
from ._small_constants import without_small_constants

SMALL = 1e-2
"""What is larger than this is no guard against a division by zero."""


@dataclass(frozen=True)
class MissingEps:
    """x̄ is the true gradient of the forward with ε = 0, an argument or a constant."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        for index, leaf in enumerate(seen.subject.leaves):
            if not isinstance(leaf, float) or leaf <= 0:
                continue
            if leaf > SMALL and "eps" not in seen.subject.names[index]:
                continue
            for value in (0.0, leaf**2, leaf**0.5):
                leaves = list(seen.subject.leaves)
                leaves[index] = value
                other = seen.subject.at(leaves)
                if seen.explained_by(lambda i, s=other: _true_of(s, seen, i)):
                    name = seen.subject.names[index]
                    said = "is missing from" if not value else "is wrong in"
                    return (
                        f"{name} = {leaf:g} {said} the backward: the gradient is the "
                        f"true one for {name} = {value:g}"
                    )
        for value, line, proposal in without_small_constants(seen, SMALL):
            if seen.explained_by(proposal):
                return (
                    f"the constant {value:g} is missing from the backward: the "
                    f"gradient is the true one with 0 in its place ({line})"
                )
        return None


def _true_of(subject: Subject, seen: Evidence, i: int) -> Tensor | None:
    found = truth(seen.subject)
    if found.kind == DIFFERENCES:
        return None
    if found.kind == GIVEN:
        return subject.vjp(seen.cotangents[i], call=subject.reference)[seen.place]
    return own_gradient(subject, seen.cotangents[i])[seen.place]
