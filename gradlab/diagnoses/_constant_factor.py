"""The gradient is right up to a number."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from gradlab.points import other_sizes
from gradlab.subject import Crash, Mismatch, Subject, attempt, own_gradient, truth

from ._evidence import Evidence, evidence
from ._named_constant import name_constant


@dataclass(frozen=True)
class ConstantFactor:
    """x̄ = c (∂y/∂x)ᵀ ȳ with c ≠ ±1, named where the call has a number like it."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is None:
            return None
        c = seen.factor
        if abs(c + 1) <= seen.tolerance:
            return None
        name = _confirmed(c, seen)
        flipped = ", and the sign is flipped" if c < 0 else ""
        return f"the gradient is {c:.6g} times the true one" + (
            f": {name}{flipped}" if name else flipped
        )


def _confirmed(c: float, seen: Evidence) -> str:
    """The name of a constant that follows the sizes, when they change, or none of them.

    2/3 is (n − 1)/n for n = 3 only if it is 66/67 for n = 67.
    """
    name = name_constant(c, seen.subject, seen.tolerance)
    if not re.search(r"shape\[|numel\(\)|count of", name):
        return name
    elsewhere = [
        (other, factor)
        for other in _resized(seen.subject)
        if (factor := _factor(other, seen.place)) is not None
    ]
    if not elsewhere:
        return name
    if all(abs(factor - c) <= 1e-5 * abs(c) for _, factor in elsewhere):
        return _plain(c, seen)
    for other, factor in elsewhere:
        known = name_constant(factor, other, seen.tolerance)
        if _pattern(known) == _pattern(name):
            return name
    return _plain(c, seen)


def _pattern(name: str) -> str:
    return re.sub(r"(?<!\[)\d+", "#", name)


def _plain(c: float, seen: Evidence) -> str:
    """A simple fraction, where no size has anything to do with it."""
    for q in range(1, 13):
        p = round(abs(c) * q)
        if 0 < p <= 24 and abs(abs(c) - p / q) <= seen.tolerance * abs(c):
            return f"{p}/{q}, whatever the sizes" if q > 1 else f"{p}, at any size"
    return ""


def _resized(subject: Subject) -> list[Subject]:
    found = attempt(lambda: list(other_sizes(subject))[::2])
    return [] if isinstance(found, Crash) else found


def _factor(subject: Subject, place: int) -> float | None:
    """The c of x̄ = c · true x̄ at another size."""
    subject.__dict__["_functions"] = truth(subject).functions
    g = attempt(lambda: subject.vjp(subject.cotangents[0])[place])
    r = attempt(lambda: own_gradient(subject, subject.cotangents[0])[place])
    if not isinstance(g, torch.Tensor) or not isinstance(r, torch.Tensor):
        return None
    size = float(torch.linalg.vector_norm(r)) ** 2
    if not size or g.shape != r.shape:
        return None
    c = float((torch.sum(r.conj() * g) / size).real)
    return c if bool(((g - c * r).abs() <= 1e-5 * g.abs().max()).all()) else None
