"""A sum over a dim that is missing, is over another dim, or is something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from gradlab.subject import Mismatch, attempt, largest_entry

from ._evidence import Evidence, evidence
from ._paths import Paths, paths
from ._recorder import Broadcast, Reduction

_Whole = Callable[[int], Tensor | None]


@dataclass(frozen=True)
class Unreduced:
    """x̄ = Σ over the wrong dims, a maximum or one slice where Σ is meant.

    Three places: the gradient of a broadcast input is a sum over the dims it was
    broadcast along; the gradient itself may be summed where it must not; and a term
    that the forward reduces and broadcasts again is a sum in the backward too.
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        return _broadcast(seen) or _flat(seen) or _inside(seen)


def _broadcast(seen: Evidence) -> str | None:
    """Candidates from the gradient of the input as it is after broadcasting."""
    shape = seen.x.shape
    for whole in _wholes(seen):
        full = attempt(lambda whole=whole: whole(0))
        if not isinstance(full, Tensor) or full.shape == shape:
            continue
        lead = full.ndim - len(shape)
        padded = (1,) * lead + tuple(shape)
        dims = tuple(d for d, n in enumerate(padded) if n != full.shape[d])
        r = seen.expected[0]
        if not dims or full.numel() == r.numel():
            continue
        off = full.sum(dims, True).reshape(shape) - r
        if largest_entry(off) > seen.tolerance * largest_entry(r):
            continue
        for what, reduce in _reductions(dims, full):
            if seen.explained_by(lambda i, r=reduce, w=whole: _reduced(w(i), r, shape)):
                return (
                    f"the gradient of the broadcast {seen.name} is {what}; it is the "
                    f"sum over {_dims(dims)}"
                )
    return None


def _wholes(seen: Evidence) -> Iterator[_Whole]:
    """The gradient before it is summed: at an expanded input, or grad_output."""
    for j, y in enumerate(seen.subject.outputs):
        expanded = attempt(lambda y=y: seen.x.expand(y.shape))
        if not isinstance(expanded, Tensor) or expanded.shape == seen.x.shape:
            continue

        def at_expanded(i: int, expanded: Tensor = expanded) -> Tensor | None:
            tensors = list(seen.subject.tensors)
            tensors[seen.place] = expanded.contiguous()
            return seen.true(seen.cotangents[i], tensors)

        yield at_expanded
        yield lambda i, j=j: seen.cotangents[i][j]


def _reductions(
    dims: tuple[int, ...], full: Tensor
) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    over = _dims(dims)
    for other in combinations(range(full.ndim), len(dims)):
        if other != dims:
            yield f"the sum over {_dims(other)}", lambda t, o=other: t.sum(o, True)
    yield f"the maximum over {over}", lambda t: t.amax(dims, True)
    for index, which in ((0, "first"), (-1, "last")):

        def one(t: Tensor, index: int = index) -> Tensor:
            for d in dims:
                t = t.narrow(d, index % t.shape[d], 1)
            return t

        yield f"the {which} slice along {over}", one


def _reduced(
    full: Tensor | None, reduce: Callable[[Tensor], Tensor], shape: torch.Size
) -> Tensor | None:
    if full is None:
        return None
    result = reduce(full)
    return result.reshape(shape) if result.numel() == shape.numel() else None


def _flat(seen: Evidence) -> str | None:
    """The gradient is a sum, mean or slice of the true one, broadcast."""
    shape = seen.x.shape
    ways: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
        "mean": lambda t, d: t.mean(d, True),
        "sum": lambda t, d: t.sum(d, True),
        "first slice": lambda t, d: t.narrow(d[0], 0, 1),
    }
    long = [d for d, n in enumerate(shape) if n > 1]
    for dims in [(d,) for d in long] + ([tuple(long)] if len(long) > 1 else []):
        for what, reduce in ways.items():
            if seen.explained_by(
                lambda i, r=reduce, d=dims: r(seen.expected[i], d).expand(shape)
            ):
                return (
                    f"the gradient is the {what} of the true one over {_dims(dims)}, "
                    f"the same for all {shape[dims[0]]} entries there"
                )
    return None


def _inside(seen: Evidence) -> str | None:
    """A term that the backward reduces otherwise than the forward broadcasts it."""
    found = paths(seen)
    if found is None:
        return None
    for step in [*found.reductions, *found.broadcasts]:
        (q,) = found.adjoints(seen.cotangents[0], [step.after])
        if q is None:
            continue
        for what, reduce in _other_sums(step, q):
            if seen.explained_by(
                lambda i, s=step, r=reduce, q=q: _with_sum(seen, found, s, r, i, q)
            ):
                place = f"`{step.op}` ({step.line})"
                return f"what reaches {place} is {what}; it is {_true(step)}"
    return None


def _other_sums(
    step: Broadcast, q: Tensor
) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    if isinstance(step, Reduction):
        yield from _other_reductions(step, q)
        return
    for what, reduce in _reductions(step.dims, q):
        if reduce(q).numel() == step.shape.numel():
            yield what, lambda t, r=reduce: r(t).reshape(step.shape)


def _varies(t: Tensor) -> bool:
    return t.numel() > 1 and largest_entry(t - t.mean()) > 1e-6 * largest_entry(t)


def _with_sum(
    seen: Evidence,
    found: Paths,
    step: Broadcast,
    reduce: Callable[[Tensor], Tensor],
    i: int,
    first: Tensor,
) -> Tensor | None:
    q: Tensor | None = first
    if i:
        (q,) = found.adjoints(seen.cotangents[1], [step.after])
    if q is None:
        return None
    right = q.sum(step.dims, True)
    if isinstance(step, Reduction):
        right = right.expand(q.shape) * step.weight
    else:
        right = right.reshape(step.shape)
    change = found.back(step.before, (reduce(q) - right).contiguous())
    return None if change is None else seen.expected[i] + change


def _true(step: Broadcast) -> str:
    mean = isinstance(step, Reduction) and step.op.startswith("mean")
    return f"the {'mean' if mean else 'sum'} over {_dims(step.dims)}"


def _other_reductions(
    step: Reduction, q: Tensor
) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    dims, over = step.dims, _dims(step.dims)
    for other in combinations(range(q.ndim), len(dims)):
        # A sum that is the same everywhere does not tell which dims it is over.
        if other != dims and _varies(q.sum(other)):
            yield (
                f"the sum over {_dims(other)}",
                lambda t, o=other: t.sum(o, True).expand(t.shape) * step.weight,
            )
    if len(dims) == 1 and q.ndim > 1:
        every = tuple(range(q.ndim))
        yield (
            f"the sum over {_dims(every)}",
            lambda t: t.sum(every, True).expand(t.shape) * step.weight,
        )
    yield f"not summed over {over} at all", lambda t: t * step.weight
    yield (
        f"the maximum over {over}",
        lambda t: t.amax(dims, True).expand(t.shape) * step.weight,
    )


def _dims(dims: tuple[int, ...]) -> str:
    return ("dims " if len(dims) > 1 else "dim ") + " and ".join(map(str, dims))
