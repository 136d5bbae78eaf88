"""Some entries of the gradient are right, and the others right up to a number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch, largest_entry

from ._dropped_output import DroppedOutput
from ._evidence import Evidence, evidence
from ._extra_factor import ExtraFactor
from ._first_element_only import FirstElementOnly
from ._missing_term import MissingTerm
from ._named_constant import name_constant

_PLAINER = (DroppedOutput(), FirstElementOnly(), ExtraFactor(), MissingTerm())
"""What says why the gradient ends there is not told as where it ends."""


@dataclass(frozen=True)
class PartialFactor:
    """x̄ᵢ = c · true x̄ᵢ on some entries i, the same for every ȳ; x̄ᵢ = true x̄ᵢ elsewhere.

    c = 0 is a gradient that does not reach them; a true x̄ of 0 is one that must not.
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        said = _says(seen)
        return None if said and any(d(mismatch) for d in _PLAINER) else said


def _says(seen: Evidence) -> str | None:
    where = _wrong(seen, 0)
    count, total = int(where.sum()), where.numel()
    if not 2 <= count < total or not torch.equal(where, _wrong(seen, 1)):
        return None
    of = f"in {count} of {total} entries"
    r, g = seen.expected[0][where], seen.actual[0][where]
    if all(largest_entry(t[where]) <= b for t, b in _pairs(seen, seen.expected)):
        return f"the true gradient is 0 {of}, and the one returned is not"
    if all(largest_entry(t[where]) <= b for t, b in _pairs(seen, seen.actual)):
        return f"the gradient returned is 0 {of}, and the true one is not"
    c = float((torch.vdot(r, g) / torch.linalg.vector_norm(r) ** 2).real)
    if not seen.explained_by(
        lambda i: torch.where(where, c * seen.expected[i], seen.expected[i])
    ):
        return None
    name = name_constant(c, seen.subject, seen.tolerance)
    what = " (the sign)" if abs(c + 1) < seen.tolerance else f": {name}" * bool(name)
    return f"the gradient is {c:.6g} times the true one {of}{what}"


def _wrong(seen: Evidence, i: int) -> Tensor:
    off = (seen.actual[i] - seen.expected[i]).abs()
    return (off > 10 * seen.bounds[i]) & seen.comparable[i]


def _pairs(seen: Evidence, tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, float]]:
    return list(zip(tensors, seen.bounds, strict=True))
