"""A backward that is not linear in grad_output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch, largest_entry

from ._evidence import Evidence, evidence

_SIMPLE: dict[str, Callable[[Tensor], Tensor]] = {
    "grad_output is squared": lambda v: v * v,
    "the absolute value of grad_output is taken": torch.abs,
    "only the sign of grad_output is used": torch.sgn,
    "negative entries of grad_output are set to 0": torch.relu,
    "positive entries of grad_output are set to 0": lambda v: -torch.relu(-v),
    "grad_output is divided by its norm": lambda v: v / torch.linalg.vector_norm(v),
    "grad_output is divided by its largest entry": lambda v: v / v.abs().max(),
    "tanh is applied to grad_output": torch.tanh,
    "grad_output is multiplied by its absolute value": lambda v: v * v.abs(),
}


@dataclass(frozen=True)
class NonlinearGradOutput:
    """x̄ = (∂y/∂x)ᵀ m(ȳ), or m of the gradient: m a square, |·|, sign, clamp, ȳ/‖ȳ‖."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        if any(v.is_complex() for v in seen.cotangents[0]) or seen.x.is_complex():
            return None
        first, second = seen.actual
        if largest_entry(first - second) <= 1e-9 * largest_entry(first):
            return None
        for what, read in _SIMPLE.items():
            if seen.reads(read):
                return f"{what}: a backward must be linear in it, x̄(2ȳ) = 2 x̄(ȳ)"
        for c in _bounds(seen):
            if seen.reads(lambda v, c=c: v.clamp(-c, c)):
                return f"grad_output is clamped to ±{c:.4g}"
        for what, move in _SIMPLE.items():
            if seen.explained_by(lambda i, move=move: move(seen.expected[i])):
                return what.replace("grad_output", "the gradient")
        c = max(map(largest_entry, seen.actual))
        if seen.explained_by(lambda i: seen.expected[i].clamp(-c, c)):
            return f"the gradient is clamped to ±{c:.4g}"
        return None


def _bounds(seen: Evidence) -> Iterator[float]:
    """What grad_output may be clamped to: a usual number, or one of the call."""
    v = seen.cotangents[0][0]
    if len(seen.cotangents[0]) == 1 and v.shape == seen.x.shape:
        g, r = seen.actual[0], seen.expected[0]
        kept = r != 0
        read = (g * v)[kept] / r[kept]
        if c := largest_entry(read):
            yield float(f"{c:.9g}")
        return
    yield from (1.0, 0.5, 0.1, 0.25, 0.01, 1e-3, 2.0)
    for leaf in seen.subject.leaves:
        if isinstance(leaf, float) and leaf > 0:
            yield leaf
