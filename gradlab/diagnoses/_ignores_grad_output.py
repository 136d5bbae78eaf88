"""The backward never reads what it is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gradlab.subject import Mismatch, largest_entry

from ._evidence import evidence


@dataclass(frozen=True)
class IgnoresGradOutput:
    """x̄(ȳ) = x̄(z̄) for ȳ ≠ z̄: as if ȳ were always the same."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None:
            return None
        first, second = seen.actual
        change, size = largest_entry(first - second), largest_entry(first)
        if change > 1e-9 * size:
            return None
        assumed = {"ones": 1.0, "-1 everywhere": -1.0}
        for what, value in assumed.items():
            if seen.reads(lambda v, value=value: torch.full_like(v, value)):
                return (
                    "grad_output is ignored: the gradient is the true one for a "
                    f"grad_output of {what}"
                )
        return (
            "grad_output is ignored: two different ones give the same gradient, to "
            f"{change / size:.0e}"
        )
