"""The backward is linear in grad_output, as every derivative is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import (
    Crash,
    Grads,
    Mismatch,
    Subject,
    attempt,
    calls_recorded,
    functions,
    recognise,
    subject_of,
)

from ._difference import Difference, differences, named

SIZE = 3.7


@dataclass(frozen=True)
class LinearInGradOutput:
    """x̄(a v + b w) = a x̄(v) + b x̄(w); so x̄(c v) = c x̄(v), x̄(−v) = −x̄(v), x̄(0) = 0.

    Loss scaling, gradient accumulation and every sum of losses rely on it.
    """

    level: Level = "contract"
    weights: tuple[float, float] = (0.7, -1.3)
    factors: tuple[float, ...] = (SIZE, 100.0, -1.0, 0.0)

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each way in which it fails."""
        broken: dict[int, list[str]] = {}
        worst: dict[int, float] = {}
        for what, a, b in self._combinations():
            v, w = subject.cotangents
            mixed = [a * s + b * t for s, t in zip(v, w, strict=True)]
            got = attempt(lambda mixed=mixed: subject.vjp(mixed))
            if isinstance(got, Crash):
                yield Mismatch(
                    "linear_in_grad_output",
                    "error",
                    f"the backward raises {got} for a grad_output of {what}",
                    subject=subject,
                )
                continue
            # Of the size of x̄(v), so that rounding does not look large.
            size = max(abs(a), abs(b)) or 1.0
            got = [None if g is None else g / size for g in got]
            expected = _mixed(subject, a / size, b / size)
            for found in differences(subject, got, expected):
                broken.setdefault(found.place, []).append(what)
                worst[found.place] = max(found.error, worst.get(found.place, 0.0))
        for place, failing in broken.items():
            yield _mismatch(subject, Difference(place, worst[place]), failing)

    def _combinations(self) -> Iterator[tuple[str, float, float]]:
        for c in self.factors:
            yield {-1.0: "−v", 0.0: "0"}.get(c, f"{c:g} v"), c, 0.0
        yield f"{self.weights[0]:g} v − {-self.weights[1]:g} w", *self.weights


def _mixed(subject: Subject, a: float, b: float) -> Grads:
    """The right side, a x̄(v) + b x̄(w)."""

    def mix(g: Tensor | None, h: Tensor | None) -> Tensor | None:
        if g is None or h is None:
            return None
        return a * g + b * h if b else a * g

    first, second = subject.gradients
    return tuple(mix(g, h) for g, h in zip(first, second, strict=True))


def _mismatch(subject: Subject, found: Difference, failing: list[str]) -> Mismatch:
    name = named(subject, [found])
    choice = _choice(subject, found.place)
    how = _how(subject, found.place, failing)
    return Mismatch(
        "linear_in_grad_output",
        "note" if choice else "error",
        f"the gradient of {name} is not linear in grad_output: {how}"
        + (f" ({choice})" if choice else ""),
        verdict="correct" if choice else "fragile",
        input=name,
        where=f"grad_output of {', '.join(failing)}",
        hint="" if choice else "multiply by grad_output once; clip in the optimizer",
        numbers={"relative error": found.error},
        subject=subject,
        place=found.place,
    )


def _how(subject: Subject, place: int, failing: list[str]) -> str:
    """What a multiple of v does instead of multiplying the gradient."""
    v = subject.cotangents[0]
    zero, minus, scaled = (
        attempt(lambda c=c: subject.vjp([c * s for s in v])[place])
        for c in (0.0, -1.0, SIZE)
    )
    one = subject.gradients[0][place]
    tensors = (zero, minus, scaled)
    if one is None or not all(isinstance(g, Tensor) for g in tensors):
        return f"x̄ of {failing[0]} is not what x̄(v) and x̄(w) make of it"
    if not bool(torch.isfinite(zero).all()):
        return "it is NaN or infinite for a grad_output of zeros"
    if bool((zero != 0).any()):
        if torch.equal(zero, one) and torch.equal(scaled, one):
            return "it does not depend on grad_output at all"
        return "a grad_output of zeros does not give zeros"
    power = _power(one, scaled)
    if power is not None and abs(power) < 0.01:
        return "it does not grow with grad_output, which is normalised or only its sign"
    if torch.equal(minus, one):
        even = f" (it grows with power {power:.2g})" if power is not None else ""
        return f"x̄(−v) = x̄(v), as of a square or an absolute value{even}"
    if power is not None and abs(power - 1) > 0.01:
        return f"c v gives c^{power:.2g} times the gradient"
    if "−v" in failing:
        return "x̄(−v) ≠ −x̄(v): one sign of it is treated unlike the other"
    if any(" v" in what and "w" not in what for what in failing):
        return "a large grad_output does not give a large gradient: is it clipped?"
    return "the gradient of a sum is not the sum of the gradients"


def _power(one: Tensor, scaled: Tensor) -> float | None:
    """The p where scaled = SIZE^p one in every entry."""
    size = one.abs().max()
    if not size or not scaled.abs().max():
        return None
    ratio = scaled.abs().max() / size
    if not bool(((scaled - ratio * one).abs() <= 1e-6 * ratio * size).all()):
        return None
    return math.log(float(ratio)) / math.log(SIZE)


def _choice(subject: Subject, place: int) -> str | None:
    """Which surrogate it is, of the whole or of the Functions inside that are one."""
    if choice := recognise(subject, place):
        return choice
    with calls_recorded(functions(subject)) as calls:
        subject.run(subject.fresh())
    if len(calls) == 1 and calls[0].function.__name__ == subject.title:
        return None
    choices = []
    for call in calls:
        inner = subject_of(call, subject)
        if inner is None:
            continue
        for a, b in ((100.0, 0.0), (0.7, -1.3)):
            v, w = inner.cotangents
            got = inner.vjp([a * s + b * t for s, t in zip(v, w, strict=True)])
            choices += [
                recognise(inner, found.place)
                for found in differences(inner, got, _mixed(inner, a, b))
            ]
    return next(iter(choices), None) if all(choices) else None
