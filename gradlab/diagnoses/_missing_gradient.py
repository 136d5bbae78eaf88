"""An input gets no gradient, or zeros."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.subject import Mismatch, largest_entry


@dataclass(frozen=True)
class MissingGradient:
    """x̄ = None, or x̄ = 0, although ∂y/∂x ≠ 0."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        subject, place, actual = mismatch.subject, mismatch.place, mismatch.actual
        if subject is None or place is None or actual is None:
            return None
        if mismatch.expected is None or mismatch.verdict != "wrong":
            return None
        if any(largest_entry(g) > 0 or not bool(g.isfinite().all()) for g in actual):
            return None
        size = largest_entry(mismatch.expected[0])
        name = subject.input_names[place]
        none = all(g[place] is None for g in subject.gradients)
        what = f"None for {name}" if none else f"zeros for {name}"
        return (
            f"the backward returns {what}, whose gradient has entries up to {size:.3g}"
        )
