"""Axes in the wrong order, in the gradient or in a factor of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from gradlab.subject import Mismatch

from ._axes import flipped, permuted, reinterpreted
from ._evidence import Evidence, evidence


@dataclass(frozen=True)
class Transposed:
    """x̄ = P (∂y/∂x)ᵀ ȳ with P a permutation or reversal of axes, or (∂y/∂x)(Wᵀ)ᵀ ȳ."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        shape = seen.x.shape
        for what, move in chain(permuted(shape), reinterpreted(shape), flipped(shape)):
            if seen.explained_by(lambda i, move=move: move(seen.expected[i])):
                if "order (1, 0)" in what:
                    return "the gradient is the transpose of the true one"
                axes = "" if "ax" in what else " (a transpose is missing)"
                return f"the gradient {what}, against the true one{axes}"
        return _operand(seen)


def _operand(seen: Evidence) -> str | None:
    """An input that enters the gradient transposed."""
    for place, name in enumerate(seen.subject.input_names):
        t = seen.subject.tensors[place]
        if t.ndim < 2 or t.shape[-1] != t.shape[-2] or t.shape[-1] == 1:
            continue
        if t.ndim < 4 and seen.at(place, lambda t: t.mT):
            return (
                f"{name} enters the gradient of {seen.name} transposed: it is the true "
                f"one for {name} with its last two axes exchanged"
            )
    return None
