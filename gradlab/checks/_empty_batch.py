"""A batch of nothing has a gradient of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import (
    DIFFERENCES,
    Crash,
    Grads,
    Mismatch,
    Subject,
    Tensors,
    attempt,
    functions,
    grad,
    normal_like,
    own_forward_differentiated,
    truth,
)

_CODE = "empty_batch"


@dataclass(frozen=True)
class EmptyBatch:
    """f(x of 0 rows) has x̄ of 0 rows, and θ̄ = 0: a sum over no rows.

    Only for inputs on which the forward runs and autograd of the own forward does too.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch when the backward alone cannot do it."""
        classes = functions(subject)
        if not classes:
            return
        for leaves, name in _candidates(subject):
            empty = subject.at(leaves)
            ys = attempt(lambda s=empty: s.run(s.fresh()))
            if isinstance(ys, Crash) or not any(map(_of_no_rows, ys)):
                continue
            found = attempt(lambda s=empty: _gradients(s))
            if _harmless(found):
                return
            with own_forward_differentiated(classes):
                own = attempt(lambda s=empty: _gradients(s))
            if isinstance(own, Crash):
                return
            if truth(subject).kind == DIFFERENCES and not all(map(_of_no_rows, ys)):
                return  # the own forward cannot say what the other rows give
            yield from _mismatches(empty, name, found, own)
            return


def _candidates(subject: Subject) -> Iterator[tuple[list[Any], str]]:
    """The arguments with no rows in one input, or in all inputs with as many rows."""
    for place in subject.places:
        x = subject.leaves[place]
        if not x.ndim or not x.shape[0]:
            continue
        alike = {
            i
            for i, leaf in enumerate(subject.leaves)
            if isinstance(leaf, Tensor) and leaf.shape[:1] == x.shape[:1]
        }
        for emptied in ({place}, alike) if len(alike) > 1 else ({place},):
            yield (
                [
                    leaf[:0] if i in emptied else leaf
                    for i, leaf in enumerate(subject.leaves)
                ],
                subject.names[place],
            )


def _of_no_rows(y: Tensor) -> bool:
    """Not as many rows as before with nothing in each, as of a square weight."""
    return y.requires_grad and (not y.ndim or (not y.shape[0] and all(y.shape[1:])))


def _gradients(subject: Subject) -> Grads:
    leaves = subject.fresh()
    ys: Tensors = subject.run(leaves)
    generator = torch.Generator().manual_seed(subject.seed + 1)
    return grad(ys, leaves, [normal_like(y, generator) for y in ys])


def _harmless(found: Any) -> bool:
    return not isinstance(found, Crash) and all(
        g is None or not bool((g != 0).any()) for g in found
    )


def _mismatches(
    empty: Subject, name: str, found: Any, own: Grads
) -> Iterator[Mismatch]:
    where = f"{name}: {list(empty.leaves[empty.names.index(name)].shape)}"
    if isinstance(found, Crash):
        yield Mismatch(
            _CODE,
            "warning",
            f"the forward takes an empty batch, the backward raises {found}",
            where=where,
            hint="sizes with -1 are ambiguous and extrema undefined where there is "
            "nothing; name the sizes",
            subject=empty,
        )
        return
    triples = zip(empty.input_names, found, own, strict=True)
    for place, (label, g, r) in enumerate(triples):
        r = torch.zeros_like(empty.tensors[place]) if r is None else r
        if g is None or not bool(r.isfinite().all()):
            continue
        size = float(r.abs().max()) if r.numel() else 0.0
        if bool(g.isfinite().all()) and bool(((g - r).abs() <= 1e-6 * size).all()):
            continue
        said = (
            "is not that of a sum over no rows"
            if bool(g.isfinite().all())
            else "is NaN or infinite"
        )
        yield Mismatch(
            _CODE,
            "error",
            f"for an empty batch the gradient of {label} {said}",
            input=label,
            where=where,
            subject=empty,
        )
