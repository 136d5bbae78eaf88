"""The gradient is right at other points and shapes too, wherever the forward runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.points import guesses, off_default_values, points
from gradlab.subject import (
    DIFFERENCES,
    FORWARD,
    Crash,
    Grads,
    Mismatch,
    NotChecked,
    Subject,
    Tensors,
    arguments_kept,
    attempt,
    derivative,
    filled,
    functions,
    grad,
    inner,
    natural_directions,
    own_forward_stands_in,
    own_gradient,
    recognise,
    truth,
)

from ._compare import compare


@dataclass(frozen=True)
class HoldsAtOtherPoints:
    """x̄ = (∂y/∂x)ᵀ ȳ at zeros, ties, large and tiny values, other sizes, ...

    At a kink every value between the one-sided derivatives is right.
    """

    level: Level = "full"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields one mismatch for each input, with all points where it differs."""
        alone = truth(subject).kind in (DIFFERENCES, FORWARD)
        look = _by_differences if alone else _at
        places = range(len(subject.places))
        if look is _by_differences and any(recognise(subject, i) for i in places):
            raise NotChecked("a chosen gradient has no truth at other points")
        found: dict[tuple[str, ...], list[Mismatch]] = {}
        for point, guessed in _around(subject):
            found_here = attempt(lambda p=point, g=guessed: list(look(p, subject, g)))
            if isinstance(found_here, Crash):
                continue  # a domain that ends right beside the point
            for mismatch in found_here:
                key = (mismatch.input, mismatch.verdict, mismatch.severity)
                found.setdefault(key, []).append(mismatch)
        for same in found.values():
            titles = list(dict.fromkeys(m.subject.title for m in same if m.subject))
            where = "at " + ", ".join(titles[:4])
            where += f" and {len(titles) - 4} more" if len(titles) > 4 else ""
            inside = same[0].where
            yield dataclasses.replace(
                same[0], where=where + (f"; at the first: {inside}" if inside else "")
            )


def _around(subject: Subject) -> Iterator[tuple[Subject, bool]]:
    start = subject
    for moved in off_default_values(subject):
        start = moved
        yield moved, False
    for point in (*points, *guesses):
        for moved in point(start):
            yield moved, point in guesses


def _at(point: Subject, subject: Subject, guessed: bool) -> Iterator[Mismatch]:
    point.__dict__["differentiable"] = subject.differentiable
    classes = point.__dict__["_functions"] = functions(subject)
    leaves = point.fresh()
    with arguments_kept(classes):
        outputs = attempt(lambda: point.run(leaves))
    if isinstance(outputs, Crash) or len(outputs) != len(subject.outputs):
        return
    if not all(bool(torch.isfinite(y).all()) for y in outputs):
        return
    point.__dict__["outputs"] = tuple(y.detach() for y in outputs)
    # Both gradients from one graph: these are many points.
    actual = attempt(
        lambda: grad(outputs, leaves, _copies(point.cotangents[0]), retain_graph=True)
    )
    with own_forward_stands_in(classes):
        expected = attempt(lambda: grad(outputs, leaves, _copies(point.cotangents[0])))
    if isinstance(expected, Crash) or _left_unread(point, subject, expected):
        return
    if isinstance(actual, Crash):
        if _invalid(point) or actual.of_linear_algebra:
            return
        if any(r is None for r in expected):
            return  # of an input that is not read, any size is taken
        # The engine refuses a gradient of the wrong shape: that is never a choice.
        loud = guessed and "invalid gradient" not in str(actual)
        yield Mismatch(
            "holds_at_other_points",
            "note" if loud else "error",
            f"the backward raises {actual}, where the forward runs",
            verdict="correct" if loud else "fragile",
            subject=point,
        )
        return
    for place, (g, r) in enumerate(zip(actual, expected, strict=True)):
        x = point.tensors[place]
        g, r = filled(g, x), filled(r, x)
        scale = point.scale(place, expected)
        close = (g - r).abs() <= point.tolerance * scale
        if bool((close | ~torch.isfinite(r)).all()):
            continue
        again = filled(own_gradient(point, point.cotangents[1])[place], x)
        mismatch = compare(
            "holds_at_other_points", point, place, (r, again), doubtful=True
        )
        if mismatch is None or mismatch.severity == "note":
            continue
        if mismatch.verdict in ("wrong", "approximate"):
            yield mismatch


def _left_unread(point: Subject, subject: Subject, expected: Grads) -> bool:
    """Whether the forward reads nothing of what a dimension grew by: it is no size.

    Real and imaginary parts, or x, y and z, come in a dimension that is always as long.
    """
    pairs = zip(point.tensors, subject.tensors, expected, strict=True)
    for x, old, r in pairs:
        if x.ndim != old.ndim:
            continue
        for dim, (new, n) in enumerate(zip(x.shape, old.shape, strict=True)):
            if new >= 2 * n and not bool(filled(r, x).narrow(dim, n, new - n).any()):
                return True
    return False


def _by_differences(
    point: Subject, subject: Subject, guessed: bool
) -> Iterator[Mismatch]:
    """Along two random directions, where the forward leaves torch."""
    point.__dict__["differentiable"] = subject.differentiable
    if len(point.outputs) != len(subject.outputs):
        return
    if not all(bool(torch.isfinite(y).all()) for y in point.outputs):
        return
    grads = point.vjp(point.cotangents[0])
    for place, (name, x) in enumerate(
        zip(point.input_names, point.tensors, strict=True)
    ):
        g = filled(grads[place], x)
        if x.numel() and all(_contradicted(point, place, g, seed) for seed in (0, 1)):
            yield Mismatch(
                "holds_at_other_points",
                "error",
                f"the gradient of {name} is not the derivative there",
                verdict="wrong",
                input=name,
                subject=point,
                place=place,
            )


def _contradicted(point: Subject, place: int, g: Tensor, seed: int) -> bool:
    along: list[Tensor | None] = [None] * len(point.places)
    along[place] = u = natural_directions(point, seed)[place]
    seen = derivative(point, point.cotangents[0], along)
    claimed = inner(g, u)
    size = abs(seen.value) + abs(claimed)
    sharp = seen.finite and seen.smooth and 20 * seen.bar <= 1e-3 * size
    return sharp and not seen.allows(claimed, 1e-4 * size)


def _copies(cotangents: Tensors) -> list[Tensor]:
    return [v.clone() for v in cotangents]


def _invalid(point: Subject) -> bool:
    """Whether an index was made up that the function never promised to take."""
    return point.title.startswith("-100 in")
