"""Forward mode and the backward are two sides of one Jacobian."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradlab._report import Level
from gradlab.subject import (
    Crash,
    Derivative,
    Mismatch,
    Subject,
    attempt,
    functions,
    inner,
    truth,
)

from ._refusal import refuses

_CODE = "forward_mode"


@dataclass(frozen=True)
class ForwardMode:
    """⟨ȳ, ẏ⟩ = ⟨x̄, ẋ⟩: `jvp` of a random ẋ against the backward of a random ȳ.

    Where the two differ, finite differences say which one is right; only a wrong `jvp`
    is reported here. A Function without a `jvp` has no forward mode, which is fine.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch when `jvp` is wrong or raises."""
        classes = functions(subject)
        absent = torch.autograd.Function.jvp
        if not classes or any(cls.jvp is absent for cls in classes):
            return
        known = truth(subject)
        slope = attempt(lambda: _slope(subject, known.directions, None))
        if isinstance(slope, Crash):
            if not isinstance(slope.error, NotImplementedError):
                yield Mismatch(
                    _CODE,
                    "note",
                    f"forward mode is defined, and raises {slope}",
                    verdict="correct",
                    hint="" if refuses(slope.error) else "mend `jvp` or remove it",
                )
            return
        backward = _inner(subject, known.directions)
        if _same(subject, slope, sum(backward)):
            return
        for place, name in enumerate(subject.input_names):
            seen = known.derivatives[place]
            claimed = attempt(lambda i=place: _slope(subject, known.directions, i))
            if isinstance(claimed, Crash) or seen is None:
                continue
            if not _same(subject, claimed, backward[place]) and _denied(
                subject, seen, claimed
            ):
                yield Mismatch(
                    _CODE,
                    "error",
                    f"`jvp` is not the derivative along {name}: {claimed:.6g}, the "
                    f"backward gives {backward[place]:.6g} and differences "
                    f"{seen.value:.6g}",
                    input=name,
                    hint="ẏ = (∂y/∂x) ẋ, summed over all inputs; a tangent may be None",
                    numbers={"jvp": claimed, "backward": backward[place]},
                    subject=subject,
                )


def _slope(subject: Subject, directions: tuple[Tensor, ...], only: int | None) -> float:
    """⟨ȳ, ẏ⟩ for tangents of all inputs, or of one alone."""
    with forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(x.detach().clone(), u.clone())
            if only in (None, i)
            else x.detach().clone()
            for i, (x, u) in enumerate(zip(subject.tensors, directions, strict=True))
        ]
        tangents = [forward_ad.unpack_dual(y).tangent for y in subject.run(duals)]
        pairs = zip(subject.cotangents[0], tangents, strict=True)
        return sum(inner(v, t) for v, t in pairs if t is not None)


def _inner(subject: Subject, directions: tuple[Tensor, ...]) -> list[float]:
    pairs = zip(subject.gradients[0], directions, strict=True)
    return [0.0 if g is None else inner(g, u) for g, u in pairs]


def _same(subject: Subject, a: float, b: float) -> bool:
    if a != a or b != b:
        return True  # NaN is told elsewhere
    size = sum(
        float(g.abs().double().norm() * u.abs().double().norm())
        for g, u in zip(subject.gradients[0], truth(subject).directions, strict=True)
        if g is not None
    )
    return abs(a - b) <= 10 * subject.tolerance * max(size, abs(a), abs(b), 1e-300)


def _denied(subject: Subject, seen: Derivative, claimed: float) -> bool:
    slack = (1e-2 if subject.eps > 1e-10 else 1e-5) * (abs(seen.value) + abs(claimed))
    return seen.finite and seen.smooth and not seen.allows(claimed, slack)
