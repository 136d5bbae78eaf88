"""In float32 and half precision the backward is as accurate as autograd would be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gradlab._report import Level
from gradlab.subject import (
    DIFFERENCES,
    FORWARD,
    Crash,
    Mismatch,
    NotChecked,
    Subject,
    attempt,
    functions,
    largest_entry,
    truth,
)

from ._rounded import Rounded

_CODE = "low_precision"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class LowPrecision:
    """|x̄(dtype) − x̄| ≤ 4 |autograd(dtype) − x̄| + 8 ε in float32, bfloat16 and float16.

    All three at the same numbers, those that the dtype can hold; x̄ is the backward
    under test in float64, autograd differentiates the own forward in the dtype.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for a dtype that crashes, overflows or loses digits."""
        if not functions(subject):
            return
        known = truth(subject)
        if known.kind in (DIFFERENCES, FORWARD) or known.gradients is None:
            raise NotChecked("there is no autograd of the own forward to compare with")
        if not _is_derivative(subject):
            return  # the value checks say so
        halves = not any(
            isinstance(leaf, torch.Tensor) and leaf.is_complex()
            for leaf in subject.leaves
        )
        for dtype in _DTYPES if halves else _DTYPES[:1]:
            bits = torch.finfo(dtype).bits
            if bits < torch.finfo(subject.dtype).bits and not (
                subject.single and bits == 32
            ):
                yield from _in(subject, dtype)
        if halves and torch.finfo(subject.dtype).bits > 16:
            yield from _large(subject)


def _in(subject: Subject, dtype: torch.dtype) -> Iterator[Mismatch]:
    name = str(dtype).removeprefix("torch.")
    point = Rounded(subject, dtype)
    if isinstance(attempt(lambda: point.expected), Crash):
        return
    grads = attempt(lambda: point.narrow.vjp(point.cotangents))
    if isinstance(grads, Crash):
        if grads.of_linear_algebra:
            return  # a matrix that is singular in this precision
        if not isinstance(attempt(lambda: point.own), Crash):
            half = dtype != torch.float32
            yield Mismatch(
                _CODE,
                "note" if half else "error",
                f"the backward raises in {name}: {grads}",
                verdict="correct" if half else "fragile",
                hint="autograd of the own forward runs there; allocate with "
                "torch.zeros_like(x), not with a fixed dtype",
                subject=subject,
            )
        return
    for place, error in _worse(point, grads):
        # Rounding makes ties, and at a tie two gradients are right: ask elsewhere too.
        again = Rounded(subject, dtype, factor=0.9, which=1)
        other = attempt(lambda p=again: _worse(p, p.narrow.vjp(p.cotangents)))
        if isinstance(other, Crash) or place not in dict(other):
            continue
        name_of = subject.input_names[place]
        lost = error == float("inf")
        yield Mismatch(
            _CODE,
            "error" if lost else "warning",
            f"in {name} the gradient of {name_of} "
            + (
                "is NaN or infinite where autograd of the own forward is finite"
                if lost
                else f"has an error of {error:.1e}, autograd of the own forward of "
                f"{point.errors(point.own)[place]:.0e}"
            ),
            input=name_of,
            hint="compute sums, squares and exponentials in float32, and cast at the "
            "end",
            numbers={"relative error": error},
            subject=subject,
        )


def _large(subject: Subject) -> Iterator[Mismatch]:
    """float16 ends at 65504: the square of an input of 500 is beyond."""
    point = Rounded(subject, torch.float16, largest=500.0)
    errors = attempt(lambda: point.errors(point.narrow.vjp(point.cotangents)))
    if isinstance(errors, Crash) or max(errors) <= 0.25:
        return
    own = attempt(lambda: point.errors(point.own))
    if isinstance(own, Crash):
        return
    for name, error, theirs in zip(subject.input_names, errors, own, strict=True):
        if error > 0.25 and theirs < 0.02:
            yield Mismatch(
                _CODE,
                "warning",
                f"in float16 the gradient of {name} overflows for inputs of 500, where "
                f"autograd of the own forward has an error of {theirs:.0e}",
                input=name,
                hint="compute squares and exponentials in float32",
                numbers={"relative error": error},
                subject=subject,
            )


def _worse(point: Rounded, grads: tuple[torch.Tensor | None, ...]) -> list[tuple]:
    """The places whose error is beyond what autograd of the own forward explains."""
    floor = 8 * torch.finfo(point.dtype).eps
    errors = point.errors(grads)
    if max(errors) <= floor:
        return []
    own = attempt(lambda: point.errors(point.own))
    if isinstance(own, Crash):
        return []
    return [
        (place, error)
        for place, (error, theirs) in enumerate(zip(errors, own, strict=True))
        if error > 4 * theirs + floor
    ]


def _is_derivative(subject: Subject) -> bool:
    expected = truth(subject).gradients
    assert expected is not None
    return all(
        largest_entry(
            (0 if g is None else g) - (torch.zeros_like(x) if r is None else r)
        )
        <= 1e-2 * subject.scale(place, expected[0])
        for place, (x, g, r) in enumerate(
            zip(subject.tensors, subject.gradients[0], expected[0], strict=True)
        )
    )
