"""The right numbers in the wrong places: an index that is not inverted, or so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import Evidence, evidence
from ._misread_grad_output import MisreadGradOutput
from ._off_by_one import OffByOne
from ._transposed import Transposed

_PLAINER = (Transposed(), OffByOne(), MisreadGradOutput())
"""A pattern that has a name is told by it."""


@dataclass(frozen=True)
class WrongIndex:
    """x̄ᵢ = ȳ₍ₚᵢ₎ where true x̄ᵢ = ȳ₍qᵢ₎, or x̄ᵢ = true x̄₍ₚᵢ₎ with a permutation p.

    p is read off the first grad_output and must hold for the second.
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None or seen.x.is_complex():
            return None
        said = next(_of_grad_output(seen), None) or _of_gradient(seen)
        return None if said and any(d(mismatch) for d in _PLAINER) else said


def _of_grad_output(seen: Evidence) -> Iterator[str]:
    for j, v in enumerate(seen.cotangents[0]):
        if v.is_complex() or v.numel() < 3:
            continue
        taken, meant = _places(seen.actual[0], v), _places(seen.expected[0], v)
        if taken is None or meant is None or torch.equal(taken, meant):
            continue
        if not seen.explained_by(lambda i, j=j, p=taken: _picked(seen, i, j, p)):
            continue
        first = int((taken != meant).nonzero()[0])
        here = _index(first, seen.x.shape)
        got, right = (_index(int(p[first]), v.shape) for p in (taken, meant))
        yield (
            f"another entry of grad_output is taken: at {here} it is grad_output{got}, "
            f"and grad_output{right} is meant"
        )


def _picked(seen: Evidence, i: int, j: int, places: Tensor) -> Tensor:
    return seen.cotangents[i][j].reshape(-1)[places].view(seen.x.shape)


def _of_gradient(seen: Evidence) -> str | None:
    r = seen.expected[0]
    places = _places(seen.actual[0], r)
    if places is None or places.numel() < 3 or places.unique().numel() < places.numel():
        return None
    if not seen.explained_by(
        lambda i: seen.expected[i].reshape(-1)[places].view(seen.x.shape)
    ):
        return None
    first = int(
        (places != torch.arange(places.numel(), device=places.device)).nonzero()[0]
    )
    here, there = (_index(k, seen.x.shape) for k in (first, int(places[first])))
    return (
        f"the entries of the gradient are in other places: at {here} is the one of "
        f"{there}; is an index or permutation to be inverted?"
    )


def _places(values: Tensor, among: Tensor) -> Tensor | None:
    """Where each value is found among others that all differ; None if one is not."""
    order = among.detach().reshape(-1).sort()
    gaps = order.values.diff()
    if not gaps.numel() or not bool(torch.isfinite(order.values).all()):
        return None
    close = 1e-9 * float(order.values.abs().max())
    if float(gaps.min()) <= 4 * close:
        return None
    flat = values.detach().reshape(-1).to(order.values.dtype)
    at = torch.searchsorted(order.values, flat - close).clamp(max=len(order.values) - 1)
    if bool(((order.values[at] - flat).abs() > close).any()):
        return None
    return order.indices[at]


def _index(flat: int, shape: torch.Size) -> list[int]:
    return [int(k) for k in torch.unravel_index(torch.tensor(flat), shape)]
