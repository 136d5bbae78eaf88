"""One entry of grad_output stands for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch

from ._evidence import Evidence, evidence


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
                    of = f" {j}" if len(seen.cotangents[0]) > 1 else ""
                    return (
                        f"only {what} of grad_output{of} is used, for all {v.numel()}"
                    )
        return None


def _reads(v: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    yield "the first entry", lambda v: v.reshape(-1)[0].expand(v.shape)
    yield "the mean", lambda v: v.mean().expand(v.shape)
    yield "the sum", lambda v: v.sum().expand(v.shape)
    for d, n in enumerate(v.shape):
        for index in dict.fromkeys((n - 1, 0)):
            if n > 1:
                yield (
                    f"index {index} of dim {d}",
                    lambda v, d=d, k=index: _alone(v, d, k),
                )
    yield "the last entry", lambda v: v.reshape(-1)[-1].expand(v.shape)
    if v.ndim < 2:
        return
    for d, n in enumerate(v.shape):
        if n < 2:
            continue
        yield (
            f"index 0 of dim {d}",
            lambda v, d=d: v.narrow(d, 0, 1).expand(v.shape),
        )
        yield f"the mean over dim {d}", lambda v, d=d: v.mean(d, True).expand(v.shape)
        yield f"the sum over dim {d}", lambda v, d=d: v.sum(d, True).expand(v.shape)
        yield (
            f"index {n - 1} of dim {d}",
            lambda v, d=d, n=n: v.narrow(d, n - 1, 1).expand(v.shape),
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
