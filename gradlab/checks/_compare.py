"""Two gradients of one input, compared: equal, approximate, chosen or wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab._report import Verdict
from gradlab.subject import (
    DIFFERENCES,
    FORWARD,
    Grads,
    Mismatch,
    NotChecked,
    Subject,
    attempt,
    filled,
    judge,
    largest_entry,
    locate,
    own_gradient,
    recognise,
    symmetrised,
    truth,
)

LOOSE = 1e-3
"""Up to this relative error a gradient that is not the derivative is approximate."""


def compare(
    code: str,
    subject: Subject,
    place: int,
    expected: tuple[Tensor, Tensor],
    doubtful: bool = False,
) -> Mismatch | None:
    """Holds the gradient of one input against the true one.

    Args:
        code: The check that asks.
        subject: The function and the point.
        place: Index into `subject.tensors`.
        expected: The true gradient for both cotangents.
        doubtful: Whether a difference that finite differences cannot confirm counts
            as agreement: at points that nobody asked for.

    Returns:
        The mismatch; None where they agree, or where both are right.
    """
    x = subject.tensors[place]
    if not x.numel():
        return None
    missing = all(g[place] is None for g in subject.gradients)
    first, second = (filled(g[place], x) for g in subject.gradients)
    actual = (first, second)
    if truth(subject).symmetric[place]:
        actual = (symmetrised(first), symmetrised(second))
        expected = (symmetrised(expected[0]), symmetrised(expected[1]))
    scale = subject.scale(place, *((*([None] * place), r) for r in expected))
    pairs = list(zip(actual, expected, strict=True))
    errors = [(g - r).abs() / scale for g, r in pairs]
    comparable = [torch.isfinite(r) & torch.isfinite(g) for g, r in pairs]
    lost = [torch.isfinite(r) & ~torch.isfinite(g) for g, r in pairs]
    which = int(_max(errors[1], comparable[1]) > _max(errors[0], comparable[0]))
    error = _max(errors[which], comparable[which])
    name = subject.input_names[place]
    numbers = {
        "relative error": error,
        "largest entry": largest_entry(actual[which]),
        "expected": largest_entry(expected[which]),
    }

    def mismatch(verdict: Verdict, message: str, **options: object) -> Mismatch:
        wrong = lost[0] if bool(lost[0].any()) else errors[which] > subject.tolerance
        fields = {
            "severity": "error",
            "where": locate(wrong, errors[which], subject, place),
            **options,
        }
        return Mismatch(
            code,
            message=message,
            verdict=verdict,
            input=name,
            numbers=numbers,
            subject=subject,
            place=place,
            actual=actual,
            expected=expected,
            **fields,
        )

    if bool(lost[0].any()):
        return mismatch(
            "wrong", f"the gradient of {name} is NaN or infinite where it is finite"
        )
    rounded = error > 100 * subject.eps and _only_float32(actual, expected)
    if error <= subject.tolerance and not rounded:
        return None
    if not _repeats(subject):
        raise NotChecked("two identical runs give other outputs")
    if choice := recognise(subject, place):
        return mismatch(
            "surrogate",
            f"the gradient of {name} is not the derivative: {choice}",
            severity="warning",
            where="",
            hint="declare it: gradcheck(..., declared='surrogate')",
        )
    bound = _float32_error(subject, place, expected)
    if (rounded and error <= 1e-5) or (bound and error <= 8 * bound):
        return mismatch(
            "approximate",
            f"the gradient of {name} has the error of float32 ({error:.0e}) although "
            "the inputs are float64",
            severity="note",
            hint="declare it: gradcheck(..., declared='approximate')",
        )
    judged = judge(
        subject,
        place,
        subject.cotangents[which],
        actual[which],
        torch.where(comparable[which], expected[which], actual[which]),
    )
    if judged == "allowed" or (doubtful and judged == "unresolved"):
        return None
    if missing:
        return mismatch(
            "wrong",
            f"{name} gets no gradient although the output depends on it",
            where="",
        )
    if error <= LOOSE:
        return mismatch(
            "approximate",
            f"the gradient of {name} agrees only to a relative error of {error:.0e}",
            severity="warning",
        )
    return mismatch(
        "wrong",
        f"the gradient of {name} is not the derivative: relative error {error:.2g}",
    )


def _repeats(subject: Subject) -> bool:
    with torch.no_grad():
        again = subject.run(subject.fresh())
    return all(
        y.shape == z.shape
        and torch.allclose(y, z, rtol=subject.tolerance, atol=0.0, equal_nan=True)
        for y, z in zip(subject.outputs, again, strict=True)
    )


def _only_float32(
    actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]
) -> bool:
    """Whether a gradient holds float32 numbers alone, where the true one does not."""

    def narrow(g: Tensor) -> bool:
        single = g.to(torch.complex64 if g.is_complex() else torch.float32)
        return torch.equal(single.to(g.dtype), g)

    return all(map(narrow, actual)) and not any(map(narrow, expected))


def _float32_error(
    subject: Subject, place: int, expected: tuple[Tensor, Tensor]
) -> float:
    """The error of the true gradient when it is computed in float32."""
    if subject.dtype != torch.float64 or truth(subject).kind in (DIFFERENCES, FORWARD):
        return 0.0

    def narrow(value: object) -> object:
        return (
            value.to(_NARROW.get(value.dtype)) if isinstance(value, Tensor) else value
        )

    single = subject.at(tuple(map(narrow, subject.leaves)))
    cotangents = [v.to(_NARROW.get(v.dtype)) for v in subject.cotangents[0]]
    grads: Grads = attempt(lambda: own_gradient(single, cotangents))
    narrowed = grads[place] if isinstance(grads, tuple) else None
    if narrowed is None:
        return 0.0
    wide = narrowed.to(expected[0].dtype)
    scale = subject.scale(place, *((*([None] * place), r) for r in expected))
    return float((wide - expected[0]).abs().nan_to_num().max()) / scale


_NARROW = {torch.float64: torch.float32, torch.complex128: torch.complex64}


def _max(error: Tensor, where: Tensor) -> float:
    return float(torch.where(where, error, torch.zeros_like(error)).max())
