"""The right rule, with another tensor in the place of the one that is meant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import Evidence, evidence


@dataclass(frozen=True)
class WrongOperand:
    """x̄ = (∂y/∂x)ᵀ ȳ at y, or at another input, where x is meant, or at −x."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        return _output(seen) or _input(seen) or _grad_output(seen)


def _output(seen: Evidence) -> str | None:
    for place, name in enumerate(seen.subject.input_names):
        for y in seen.subject.outputs:
            if y.shape == seen.subject.tensors[place].shape and seen.at(
                place, lambda _, y=y: y
            ):
                return (
                    f"the output is used where {name} is meant: the gradient is the "
                    f"true one for {name} = output"
                )
    return None


def _input(seen: Evidence) -> str | None:
    tensors, names = seen.subject.tensors, seen.subject.input_names
    for place, name in enumerate(names):
        for other, t in enumerate(tensors):
            if other == place or t.shape != tensors[place].shape:
                continue
            if seen.at(place, lambda _, t=t: t):
                return (
                    f"{names[other]} is used where {name} is meant: the gradient is "
                    f"the true one for {name} = {names[other]}"
                )
    if seen.at(seen.place, torch.neg):
        return f"the gradient is the true one for -{seen.name}: a sign inside is wrong"
    return None


def _grad_output(seen: Evidence) -> str | None:
    """The gradient of an output is multiplied by what the chain rule has elsewhere."""

    def proposal(i: int) -> Tensor | None:
        (v,) = seen.cotangents[i]
        return v if v.shape == seen.x.shape else None

    if len(seen.cotangents[0]) == 1 and seen.explained_by(proposal):
        return (
            "the local derivative is missing: the gradient is grad_output itself, as "
            "if the forward were the identity"
        )
    return None
