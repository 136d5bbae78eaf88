"""A complex factor that the backward must conjugate and does not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import evidence


@dataclass(frozen=True)
class MissingConjugate:
    """x̄ = (∂y/∂x)ᵀ ȳ where (∂y/∂x)ᴴ ȳ is meant, or one factor of it conjugated."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        tensors = (*seen.subject.tensors, *seen.subject.outputs)
        if not any(t.is_complex() for t in tensors):
            return None
        if seen.explained_by(lambda i: seen.expected[i].conj()):
            return "the gradient is the complex conjugate of the true one"

        def transposed(i: int) -> Tensor | None:
            g = seen.true([v.conj() for v in seen.cotangents[i]])
            return None if g is None else g.conj()

        if seen.explained_by(transposed):
            return (
                "a conjugate is missing: the gradient is Jᵀ grad_output, and Jᴴ "
                "grad_output is meant"
            )
        if seen.reads(torch.conj):
            return (
                "grad_output is conjugated: the gradient is the true one for conj of it"
            )
        for place, name in enumerate(seen.subject.input_names):
            if seen.subject.tensors[place].is_complex() and seen.at(place, torch.conj):
                return (
                    "a conjugate is missing: the gradient is the true one for "
                    f"conj({name}), which is input {place}"
                )
        return None
