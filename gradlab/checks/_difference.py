"""Two runs that must give one gradient: which inputs get another, and by how much.

|x̄ − x̄₀| ≤ τ max|x̄₀|    τ the subject's tolerance, at least that of float32 arithmetic

A contract is about two runs of one backward, so neither of them is the truth here: a
gradient that is only computed in low precision keeps its contracts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import (
    Crash,
    Grads,
    NotChecked,
    Subject,
    attempt,
    functions,
    largest_entry,
    own_forward_differentiated,
)

FLOOR = 1e-5
"""No contract breaks by less: float32 inside a backward rounds more than float64."""


@dataclass(frozen=True)
class Difference:
    """One input whose gradient depends on what it must not depend on.

    Attributes:
        place: Index into `subject.tensors`.
        error: The largest error relative to the largest entry.
    """

    place: int
    error: float


def differences(
    subject: Subject, got: Sequence[Tensor | None], expected: Sequence[Tensor | None]
) -> list[Difference]:
    """Compares two gradients of all inputs; None is a gradient of zeros.

    Args:
        subject: The function and the point.
        got: The gradient of each input in one run.
        expected: In the other one. Entries that are not finite there are not compared.

    Returns:
        The inputs that differ.

    Raises:
        NotChecked: When two identical runs differ too, so that nothing can be said.
    """
    found = []
    for place, (g, r) in enumerate(zip(got, expected, strict=True)):
        error = _error(subject, place, g, r)
        if error:
            found.append(Difference(place, error))
    if found and not _steady(subject):
        raise NotChecked("two identical runs give different gradients")
    return found


def torchs_own(
    subject: Subject, odd: Callable[[], Grads], plain: Callable[[], Grads]
) -> bool:
    """Whether two runs differ with autograd in place of every backward as well.

    Then an op of torch is to blame: batch_norm does not read the strides of its weight.

    Args:
        subject: The function and the point.
        odd: The run that differs.
        plain: The one that it differs from.
    """
    with own_forward_differentiated(functions(subject)):
        expected, got = attempt(plain), attempt(odd)
    if isinstance(expected, Crash) or isinstance(got, Crash):
        return isinstance(got, Crash) and not isinstance(expected, Crash)
    pairs = enumerate(zip(got, expected, strict=True))
    return any(_error(subject, i, g, r) for i, (g, r) in pairs)


def named(subject: Subject, found: Iterable[Difference]) -> str:
    """The inputs that differ, in words: "x and w".

    Args:
        subject: The function and the point.
        found: The differences.
    """
    return listed(subject.input_names[d.place] for d in found)


def listed(words: Iterable[str]) -> str:
    """Words with commas and an "and", each once.

    Args:
        words: What to list.
    """
    *most, last = dict.fromkeys(words)
    return f"{', '.join(most)} and {last}" if most else last


def figures(found: Iterable[Difference]) -> Mapping[str, float]:
    """The largest error, as a finding's numbers.

    Args:
        found: The differences, at least one.
    """
    return {"relative error": max(d.error for d in found)}


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit by bit; NaN equals NaN.

    Args:
        a: A tensor.
        b: Another one.
    """
    if a.shape != b.shape:
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _error(subject: Subject, place: int, g: Tensor | None, r: Tensor | None) -> float:
    if g is None and r is None:
        return 0.0
    x = subject.tensors[place]
    g = torch.zeros_like(x) if g is None else g.detach()
    r = torch.zeros_like(x) if r is None else r.detach()
    if torch.equal(g, r) or not r.numel():
        return 0.0
    comparable = torch.isfinite(r)
    if bool((comparable & ~torch.isfinite(g)).any()):
        return float("inf")
    worst = float(torch.where(comparable, (g - r).abs(), 0.0).max())
    scale = subject.scale(place, *((*([None] * place), h) for h in (g, r)))
    if worst <= subject.tolerance * scale:
        return 0.0
    base = subject.gradients[0][place]
    spacing = 0.0 if base is None else _granularity(base)
    relative = max(subject.tolerance, FLOOR, 8 * spacing)
    if worst <= max(relative * scale, _rounding(subject, place)):
        return 0.0
    return worst / scale


def _granularity(g: Tensor) -> float:
    """The spacing of the narrow format that all entries are numbers of, if any."""
    values = torch.view_as_real(g) if g.is_complex() else g
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(values.to(dtype).to(values.dtype), values):
            return torch.finfo(dtype).eps
    return 0.0


def _rounding(subject: Subject, place: int) -> float:
    """What is left where large terms cancel: a part of |ȳ| |y| / |x|."""
    x = subject.tensors[place]
    count = sum(y.numel() for y in subject.outputs) / x.numel()
    size = max(
        largest_entry(y) * largest_entry(v)
        for y, v in zip(subject.outputs, subject.cotangents[0], strict=True)
    )
    return 100 * subject.eps * math.sqrt(1 + count) * size / (largest_entry(x) or 1.0)


def _steady(subject: Subject) -> bool:
    """Whether plain runs repeat, to rounding."""
    for _ in range(2):
        again: Grads = attempt(lambda: subject.vjp(subject.cotangents[0]))
        if not isinstance(again, tuple):
            return False
        pairs = zip(again, subject.gradients[0], strict=True)
        if any(_error(subject, i, g, r) for i, (g, r) in enumerate(pairs)):
            return False
    return True
