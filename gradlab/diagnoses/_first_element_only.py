"""One entry of grad_output stands for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import Evidence, evidence
from ._unreduced import Unreduced


@dataclass(frozen=True)
class FirstElementOnly:
    """x̄ = (∂y/∂x)ᵀ m(ȳ), m(ȳ) = ȳ₀, a mean, or one slice of ȳ, broadcast.

    Right for the gradient of a sum or mean, whose entries are all alike.
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        for j, v in enumerate(seen.cotangents[0]):
            if v.numel() < 2:
                continue
            for what, read in _reads(v):
                if seen.explained_by(lambda i, j=j, read=read: _with(seen, i, j, read)):
                    if "dropped" in what and Unreduced()(mismatch):
                        return None
                    of = f" {j}" if len(seen.cotangents[0]) > 1 else ""
                    return f"only {what.replace('ȳ', 'grad_output' + of)}"
        return None


def _reads(v: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    every = f"is used, for all {v.numel()} entries"
    yield f"the first entry of ȳ {every}", lambda v: v.reshape(-1)[0].expand(v.shape)
    yield f"the mean of ȳ {every}", lambda v: v.mean().expand(v.shape)
    yield f"the sum of ȳ {every}", lambda v: v.sum().expand(v.shape)
    yield f"the last entry of ȳ {every}", lambda v: v.reshape(-1)[-1].expand(v.shape)
    for d, n in enumerate(v.shape):
        if n < 2:
            continue
        for index in (0, n - 1):
            slice_of = f"index {index} of dim {d} of ȳ is used"
            yield (
                f"{slice_of}, the rest of ȳ is dropped",
                lambda v, d=d, k=index: _alone(v, d, k),
            )
            yield (
                f"{slice_of}, for all {n}",
                lambda v, d=d, k=index: v.narrow(d, k, 1).expand(v.shape),
            )
        for what, reduce in (("mean", Tensor.mean), ("sum", Tensor.sum)):
            yield (
                f"the {what} of ȳ over dim {d} is used, for all {n}",
                lambda v, d=d, r=reduce: r(v, d, True).expand(v.shape),
            )


def _alone(v: Tensor, dim: int, index: int) -> Tensor:
    """One slice of v, and zeros."""
    kept = torch.zeros_like(v)
    kept.select(dim, index).copy_(v.select(dim, index))
    return kept


def _with(
    seen: Evidence, i: int, j: int, read: Callable[[Tensor], Tensor]
) -> Tensor | None:
    cotangents = list(seen.cotangents[i])
    cotangents[j] = read(cotangents[j]).contiguous()
    return seen.true(cotangents)
