"""The gradient is right up to a number."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.subject import Mismatch

from ._evidence import evidence
from ._named_constant import name_constant


@dataclass(frozen=True)
class ConstantFactor:
    """x̄ = c (∂y/∂x)ᵀ ȳ with c ≠ ±1, named where the call has a number like it."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is None:
            return None
        c = seen.factor
        if abs(c + 1) <= seen.tolerance:
            return None
        name = name_constant(c, seen.subject, seen.tolerance)
        flipped = ", and the sign is flipped" if c < 0 else ""
        return f"the gradient is {c:.6g} times the true one" + (
            f": {name}{flipped}" if name else flipped
        )
