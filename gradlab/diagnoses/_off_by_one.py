"""The gradient sits one entry off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch, largest_entry

from ._evidence import Evidence, evidence


@dataclass(frozen=True)
class OffByOne:
    """x̄ᵢ = (true x̄)₍ᵢ₋ₖ₎ along one axis, k = ±1 or ±2; the border is left aside."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        for k in (1, -1, 2, -2):
            for dim, n in enumerate(seen.x.shape):
                if n > 2 * abs(k) and _shifted(seen, dim, k):
                    return (
                        f"the gradient is shifted by {k:+d} along axis {dim} against "
                        "the true one: an index is off"
                    )
        return None


def _shifted(seen: Evidence, dim: int, k: int) -> bool:
    return all(
        _inside(seen.actual[i], seen.expected[i], dim, k, seen.bounds[i])
        for i in (0, 1)
    )


def _inside(g: Tensor, r: Tensor, dim: int, k: int, bound: float) -> bool:
    g, r = g.movedim(dim, 0), r.movedim(dim, 0)
    a, b = (g[k:], r[:-k]) if k > 0 else (g[:k], r[-k:])
    if not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
        return False
    # Equal entries next to each other look shifted; so does what is mostly zero.
    told_apart = largest_entry(b[1:] - b[:-1]) > 1e-3 * largest_entry(g)
    most = int((b != 0).sum()) * 2 >= int((g != 0).sum())
    return told_apart and most and largest_entry(a - b) <= bound
