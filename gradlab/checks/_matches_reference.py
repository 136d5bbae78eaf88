"""The gradient equals that of the reference, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gradlab._report import Level
from gradlab.subject import (
    GIVEN,
    Mismatch,
    Subject,
    attempt,
    filled,
    largest_entry,
    truth,
)

from ._compare import compare


@dataclass(frozen=True)
class MatchesReference:
    """x̄ = (∂y/∂x)ᵀ ȳ for two random ȳ, entry by entry, x̄ from the backward under test.

    The right side is autograd of the reference given, or of each Function's own
    forward; `MatchesFiniteDifferences` has a say where neither can be trusted.
    """

    level: Level = "value"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each input whose gradient differs."""
        if subject.reference is not None:
            yield from _forward(subject)
        found = truth(subject)
        for reason in found.rejected:
            if reason.startswith(GIVEN):
                yield Mismatch(
                    "matches_reference",
                    "note",
                    f"{reason}; it was not used",
                    verdict="correct",
                )
        if subject.single:
            yield Mismatch(
                "matches_reference",
                "note",
                "the forward computes in float32 inside: its values are float32 "
                "numbers although the inputs are float64",
                verdict="approximate",
                hint="declare it: gradcheck(..., declared='approximate')",
            )
        if found.gradients is None:
            return
        for place, x in enumerate(subject.tensors):
            first, second = (filled(r[place], x) for r in found.gradients)
            if mismatch := compare(
                "matches_reference", subject, place, (first, second)
            ):
                yield mismatch


def _forward(subject: Subject) -> Iterator[Mismatch]:
    with torch.no_grad():
        own = [x.clone() for x in subject.tensors]
        theirs = attempt(lambda: subject.run(own, subject.reference))
    if not isinstance(theirs, tuple):
        said = f"the reference raised {theirs}"
    elif [y.shape for y in theirs] != [y.shape for y in subject.outputs]:
        said = (
            f"the forward returns {[list(y.shape) for y in subject.outputs]}, the "
            f"reference {[list(y.shape) for y in theirs]}"
        )
    else:
        pairs = list(zip(subject.outputs, theirs, strict=True))
        errors = [largest_entry(y - z) / (largest_entry(z) or 1.0) for y, z in pairs]
        if any(bool((y.isfinite() != z.isfinite()).any()) for y, z in pairs):
            errors.append(float("inf"))
        if max(errors, default=0.0) <= subject.tolerance:
            return
        said = f"the forward differs from the reference by {max(errors):.2g}"
    yield Mismatch(
        "matches_reference",
        "error",
        f"{said}: they are not the same function",
        verdict="wrong",
        hint="compare the two outputs first; gradients come after",
    )
