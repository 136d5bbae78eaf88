"""One tensor as two arguments gets both gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice

from torch import Tensor

from gradlab._report import Level
from gradlab.subject import Crash, Grads, Mismatch, Subject, attempt, grad

from ._difference import differences, figures


@dataclass(frozen=True)
class SameTensorTwice:
    """d/dx ⟨ȳ, f(x, x)⟩ = x̄₁ + x̄₂, those at (x, x′) where x′ is a copy of x."""

    level: Level = "contract"
    pairs: int = 3

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each pair of inputs where it does not hold."""
        xs = subject.tensors
        alike = (
            (i, j)
            for i, j in combinations(range(len(xs)), 2)
            if xs[i].numel()
            and (xs[i].shape, xs[i].dtype) == (xs[j].shape, xs[j].dtype)
        )
        for i, j in islice(alike, self.pairs):
            yield from _compare(subject, i, j)


def _compare(subject: Subject, i: int, j: int) -> Iterator[Mismatch]:
    equal = list(subject.tensors)
    equal[j] = equal[i]
    apart = attempt(lambda: subject.vjp(subject.cotangents[0], equal))
    if isinstance(apart, Crash):
        return
    names = f"{subject.input_names[i]} and {subject.input_names[j]}"
    got = attempt(lambda: _shared(subject, i, j))
    if isinstance(got, Crash):
        yield Mismatch(
            "same_tensor_twice",
            "error",
            f"it raises {got} when {names} are one tensor, not when they are equal",
            subject=subject,
        )
        return
    expected = list(apart)
    expected[i] = _sum(apart[i], apart[j])
    expected[j] = None
    if found := differences(subject, got, expected):
        yield Mismatch(
            "same_tensor_twice",
            "error",
            f"when {names} are one tensor, its gradient is not the sum of the two",
            where=f"{names} the same tensor",
            hint="do not tell arguments apart by identity, address or .grad",
            numbers=figures(found),
            subject=subject,
            place=i,
        )


def _shared(subject: Subject, i: int, j: int) -> Grads:
    leaves = subject.fresh()
    given = list(leaves)
    given[j] = leaves[i]
    ys = subject.run(given)
    return grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b
