"""A backward that runs along an axis the way the forward does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import Evidence, evidence
from ._wrong_index import WrongIndex


@dataclass(frozen=True)
class WrongDirection:
    """x̄ = R (∂y/∂x)ᵀ R ȳ with R the reversal of an axis: a scan that is not reversed.

    The backward of a cumulative sum is the same sum from the other end.
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        shape = seen.x.shape
        if any(v.shape != shape for v in seen.cotangents[0]):
            return None
        for dim, n in enumerate(shape):
            if n > 2 and seen.explained_by(lambda i, d=dim: _reversed(seen, i, d)):
                if _shifts(seen, dim) or WrongIndex()(mismatch):
                    continue
                return (
                    f"the backward runs along axis {dim} in the direction of the "
                    "forward: it must run the other way"
                )
        return None


def _reversed(seen: Evidence, i: int, dim: int) -> Tensor | None:
    r = seen.true([v.flip(dim) for v in seen.cotangents[i]])
    return None if r is None else r.flip(dim)


def _shifts(seen: Evidence, dim: int) -> bool:
    """Whether the gradient is a shift of the true one, which is simpler to say."""
    g, r = seen.actual[0].movedim(dim, 0), seen.expected[0].movedim(dim, 0)
    return any(
        bool((a - b).abs().max() <= seen.bounds[0])
        for k in (1, 2)
        if k < g.shape[0]
        for a, b in ((g[k:], r[:-k]), (g[:-k], r[k:]))
    )
