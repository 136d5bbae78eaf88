"""The paths of a gradient: how much of it comes through each op of the forward.

    x̄ = Σ over the paths from x to y          x̄ₖ = (∂zₖ/∂x)ᵀ z̄ₖ,   z̄ₖ = (∂y/∂zₖ)ᵀ ȳ

x̄ₖ is the sum of the paths through zₖ, the result of op k, or one of its arguments. The
forward runs once; each x̄ₖ is a backward from zₖ with the z̄ₖ of one backward from y.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradlab.subject import (
    Subject,
    attempt,
    calls_recorded,
    functions,
    grad,
    largest_entry,
    no_grad_ignored,
    own_forward,
)

from ._evidence import Evidence
from ._recorder import MOST, Cut, Recorder


class Paths:
    """The forward of a subject, taken apart.

    Attributes:
        steps: Every place that gradients pass through, in order.
        broadcasts: Every tensor that an op broadcasts.
        reductions: Every sum and mean whose result is broadcast again.
    """

    def __init__(
        self,
        subject: Subject,
        place: int,
        body: Callable[..., Any],
        see_through: bool = False,
        cuts: Collection[Cut] = (),
    ) -> None:
        self._made_of = (subject, place, body, see_through)
        self._cuts = frozenset(cuts)
        recorder = Recorder(see_through, self._cuts)

        def recorded(*args: Any) -> Any:
            copies = [a.clone() if isinstance(a, Tensor) else a for a in args]
            with recorder:
                return body(*copies)

        leaves = subject.fresh()
        with torch.enable_grad(), no_grad_ignored():
            self._outputs = subject.run(leaves, recorded)
        self._leaf = leaves[place]
        self.steps = recorder.steps
        self.broadcasts = recorder.broadcasts
        self.reductions = recorder.reductions

    def without(self, cuts: Iterable[Cut]) -> Paths:
        """The same forward with some places taken as constants.

        Args:
            cuts: The places.
        """
        return Paths(*self._made_of, self._cuts.union(cuts))

    def total(self, cotangents: tuple[Tensor, ...]) -> Tensor | None:
        """The whole gradient.

        Args:
            cotangents: A grad_output for each output.
        """
        return grad(self._outputs, [self._leaf], cotangents, retain_graph=True)[0]

    def adjoints(
        self, cotangents: tuple[Tensor, ...], edges: list[GradientEdge]
    ) -> tuple[Tensor | None, ...]:
        """z̄ at places in the graph.

        Args:
            cotangents: A grad_output for each output.
            edges: The places.
        """
        at: Any = edges
        return grad(self._outputs, at, cotangents, retain_graph=True)

    def back(self, edge: GradientEdge, adjoint: Tensor | None) -> Tensor | None:
        """What an adjoint at a place contributes to the gradient.

        Args:
            edge: The place.
            adjoint: z̄ there.
        """
        if adjoint is None:
            return None
        return torch.autograd.grad(
            [edge], [self._leaf], [adjoint], retain_graph=True, allow_unused=True
        )[0]


def paths(seen: Evidence) -> Paths | None:
    """Takes the forward apart, once.

    Args:
        seen: The evidence whose gradient is to be explained.

    Returns:
        The paths; None where the forward cannot be followed, or gives another gradient
        than the true one when it is.
    """
    cache = seen.__dict__
    if "_paths" not in cache:
        cache["_paths"] = _follow(seen)
    return cache["_paths"]


def _follow(seen: Evidence) -> Paths | None:
    subject = seen.subject
    own = own_body(subject)
    for body, see_through in ((own, False), (own, True), (subject.reference, False)):
        if body is None:
            continue
        found = _try(seen, body, see_through)
        if found is None:
            continue
        # A maximum that is subtracted and cancels is in no one's backward.
        idle = _idle_maxima(seen, found)
        if idle and (simpler := _try(seen, body, see_through, idle)) is not None:
            return simpler
        return found
    return None


def _try(
    seen: Evidence,
    body: Callable[..., Any],
    see_through: bool,
    cuts: Collection[Cut] = (),
) -> Paths | None:
    """The paths, if they add up to the true gradient."""
    found = attempt(lambda: Paths(seen.subject, seen.place, body, see_through, cuts))
    if not isinstance(found, Paths) or not 0 < len(found.steps) <= MOST:
        return None
    r = attempt(lambda: found.total(seen.cotangents[0]))
    if not isinstance(r, Tensor) or r.shape != seen.expected[0].shape:
        return None
    off = (r - seen.expected[0])[seen.comparable[0]]
    return found if largest_entry(off) <= seen.bounds[0] else None


def _idle_maxima(seen: Evidence, found: Paths) -> list[Cut]:
    """The maxima in the forward whose paths cancel."""
    steps = [s for s in found.steps if s.op.split("`")[0] in ("amax", "max")]
    results = [s for s in steps if s.argument is None]
    if not results:
        return []
    adjoints = found.adjoints(seen.cotangents[0], [s.edge for s in results])
    size = largest_entry(seen.expected[0])
    idle = []
    for step, adjoint in zip(results, adjoints, strict=True):
        t = found.back(step.edge, adjoint)
        if t is None or largest_entry(t) <= 1e-9 * size:
            idle.append(step.cut)
    return idle


def own_body(subject: Subject) -> Callable[..., Any]:
    """What the subject computes, as a plain function that autograd can follow.

    Args:
        subject: The function and the point.
    """
    classes = functions(subject)
    if not classes:
        return subject.call
    with calls_recorded(classes) as calls:
        subject.run(subject.fresh())
    if len(calls) == 1 and len(calls[0].args) == len(subject.leaves):
        return own_forward(calls[0])
    return subject.call
