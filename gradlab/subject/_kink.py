"""Whether an error in a gradient is one: at a kink any value in between is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from ._finite_differences import derivative
from ._subject import Subject, Tensors, inner, largest_entry

Judgement = Literal["wrong", "allowed", "unresolved"]
ENTRIES = 3
"""So many entries are asked about one by one."""


def judge(
    subject: Subject, place: int, cotangents: Tensors, claimed: Tensor, expected: Tensor
) -> Judgement:
    """Asks finite differences about two gradients that differ.

    Along directions made from the difference (itself, its sign, its worst entries, and
    one that moves all entries alike, so that ties stay ties) the claimed gradient must
    lie between the one-sided derivatives.

    Args:
        subject: The function and the point.
        place: Index into `subject.tensors`.
        cotangents: A grad_output for each output.
        claimed: The gradient under test, finite.
        expected: The one it was compared with.

    Returns:
        `allowed` where the claimed gradient is a derivative too (a kink, or the other
        one is wrong), `unresolved` where differences cannot tell.
    """
    error = (claimed - expected).nan_to_num(0.0, 0.0, 0.0)
    size = largest_entry(subject.tensors[place]) or 1.0
    kinked = resolved = ours = False
    for direction, alone in (
        (error / largest_entry(error), False),
        (torch.sgn(error), False),
        (torch.ones_like(error), True),
        *((unit, True) for unit in _worst_entries(error)),
    ):
        along: list[Tensor | None] = [None] * len(subject.places)
        along[place] = u = direction * size
        seen = derivative(subject, cotangents, along)
        says, others = inner(claimed, u), inner(expected, u)
        if not seen.finite:
            continue
        slack = subject.tolerance * max(abs(says), abs(others))
        if not seen.allows(says, slack):
            # Where many entries are at a kink of their own, as |x| at zeros, one sum of
            # theirs does not bound the others.
            if alone or seen.smooth:
                return "wrong"
            kinked = True
            continue
        kinked |= not seen.smooth
        bar = 20 * seen.bar + slack
        resolved |= abs(says - others) > 2 * bar
        ours |= seen.smooth and not seen.allows(others, slack)
    if kinked and not _holds_together(subject, place, cotangents):
        return "wrong"
    return "allowed" if kinked or (resolved and ours) else "unresolved"


def _holds_together(subject: Subject, place: int, cotangents: Tensors) -> bool:
    """Whether all inputs of one shape, moved alike, agree: a tie is counted once."""
    x = subject.tensors[place]
    alike = [i for i, y in enumerate(subject.tensors) if y.shape == x.shape]
    if len(alike) < 2:
        return True
    along: list[Tensor | None] = [None] * len(subject.places)
    for i in alike:
        along[i] = torch.ones_like(x) * (largest_entry(x) or 1.0)
    grads = subject.vjp(cotangents)
    pairs = [(g, u) for g, u in zip(grads, along, strict=True) if u is not None]
    says = sum(inner(g, u) for g, u in pairs if g is not None)
    seen = derivative(subject, cotangents, along)
    size = sum(inner(g.abs(), u.abs()) for g, u in pairs if g is not None)
    return not seen.finite or seen.allows(says, subject.tolerance * size)


def _worst_entries(error: Tensor) -> Iterator[Tensor]:
    largest = error.abs().reshape(-1).topk(min(ENTRIES, error.numel())).indices
    for index in largest:
        unit = torch.zeros_like(error).reshape(-1)
        unit[index] = 1.0
        yield unit.view_as(error)
