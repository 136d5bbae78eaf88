"""The same backward gives another gradient each time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradlab.subject import Mismatch, attempt, largest_entry

from ._evidence import evidence


@dataclass(frozen=True)
class NotDeterministic:
    """x̄(ȳ) ≠ x̄(ȳ) in another run with the same input, ȳ and random state."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None:
            return None
        for _ in range(2):
            grads = attempt(lambda: seen.subject.vjp(seen.cotangents[0]))
            again = grads[seen.place] if isinstance(grads, tuple) else None
            if not isinstance(again, Tensor):
                continue
            change = largest_entry(again - seen.actual[0])
            size = largest_entry(seen.actual[0])
            if change > 1e3 * seen.subject.eps * size:
                return (
                    "the backward is not deterministic: two runs with the same "
                    f"grad_output differ by {change / size:.2g} of the largest entry"
                )
        return None
