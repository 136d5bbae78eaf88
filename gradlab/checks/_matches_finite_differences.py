"""The gradient equals finite differences of the forward, the last resort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from gradlab._report import Level
from gradlab.subject import (
    DIFFERENCES,
    Mismatch,
    NotChecked,
    Subject,
    derivative,
    expected_gradient,
    filled,
    inner,
    natural_directions,
    recognise,
    truth,
)

from ._compare import compare


@dataclass(frozen=True)
class MatchesFiniteDifferences:
    """⟨x̄, u⟩ = d/dt ⟨ȳ, f(x + t u)⟩ along random u, within the error bar of the right.

    It speaks where `MatchesReference` cannot: the forward leaves torch, detaches, or is
    not written in differentiable ops.
    """

    level: Level = "value"
    directions: int = 3

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each input whose gradient differs."""
        if truth(subject).kind != DIFFERENCES:
            return
        for place, name in enumerate(subject.input_names):
            x = subject.tensors[place]
            expected = [
                expected_gradient(subject, v, place) for v in subject.cotangents
            ]
            if expected[0] is not None and expected[1] is not None:
                if mismatch := compare(
                    "matches_finite_differences",
                    subject,
                    place,
                    (expected[0], expected[1]),
                ):
                    yield mismatch
                continue
            yield from self._along_directions(subject, place, name, x)

    def _along_directions(
        self, subject: Subject, place: int, name: str, x: Tensor
    ) -> Iterator[Mismatch]:
        g = filled(subject.gradients[0][place], x)
        for seed in range(self.directions):
            along: list[Tensor | None] = [None] * len(subject.places)
            along[place] = u = natural_directions(subject, seed)[place]
            seen = derivative(subject, subject.cotangents[0], along)
            claimed = inner(g, u)
            size = abs(seen.value) + abs(claimed)
            if not seen.finite or 20 * seen.bar > 1e-2 * size:
                raise NotChecked(
                    f"finite differences along {name} are not sharp enough: "
                    f"{seen.value:.3g} ± {seen.bar:.0e}"
                )
            if seen.allows(claimed, 1e-9 * size):
                continue
            choice = recognise(subject, place)
            error = abs(claimed - seen.value) / size
            yield Mismatch(
                "matches_finite_differences",
                "warning" if choice or error <= 1e-3 else "error",
                f"the gradient of {name} is not the derivative: "
                + (choice or f"{claimed:.6g} along u, {seen.value:.6g} by differences"),
                verdict="surrogate"
                if choice
                else "approximate"
                if error <= 1e-3
                else "wrong",
                input=name,
                numbers={"claimed": claimed, "measured": seen.value, "bar": seen.bar},
                subject=subject,
                place=place,
            )
            return
