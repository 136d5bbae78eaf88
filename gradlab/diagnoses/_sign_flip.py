"""The gradient points the other way."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.subject import Mismatch

from ._evidence import evidence


@dataclass(frozen=True)
class SignFlip:
    """x̄ = −(∂y/∂x)ᵀ ȳ."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is None or abs(seen.factor + 1) > seen.tolerance:
            return None
        return "the sign is flipped: the gradient is -1 times the true one"
