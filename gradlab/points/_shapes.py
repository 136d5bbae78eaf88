"""Other shapes: a batch of one, other sizes, one more dimension.

Which inputs share a dimension is not known, so candidates are tried in an order of
plausibility, and the first one on which the forward runs is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from gradlab.subject import Crash, Subject, attempt, largest_entry, normal_like

from ._invariants import constant, fixed, permutation, symmetric, within_bounds

ODD = 67
"""A prime above the usual small blocks."""
MOST = 2**15
"""No generated tensor has more entries, unless a given one has."""

Leaves = list[Any]
Dims = Callable[[Tensor, int, Subject], list[int]]


def batch_of_one(subject: Subject) -> Iterator[Subject]:
    """The first dimension of the first input becomes 1, wherever it occurs."""
    size = _first(subject).shape[:1]
    if size and size[0] > 1:
        tried = (
            _resized(subject, size[0], 1, which) for which in (_leading, _everywhere)
        )
        yield from _first_that_runs(subject, tried, "a batch of 1")


def other_sizes(subject: Subject) -> Iterator[Subject]:
    """Each size becomes a prime, one at a time, wherever it occurs.

    A size that a constant table has too is multiplied instead, since a table may repeat
    itself (the sines of a rotary embedding).
    """
    tensors = [a for a in subject.leaves if isinstance(a, Tensor)]
    sizes = _sizes(subject)
    for size in sizes[:4]:
        new = _new_size(size, tensors, subject)
        tried = (
            _resized(subject, size, new, which) for which in (_everywhere, _first_only)
        )
        title = f"size {new} instead of {size}"
        for point in _first_that_runs(subject, tried, title):
            yield point
            yield point.moved(
                [
                    within_bounds(-y, x) if y.shape != x.shape and not fixed(x) else y
                    for x, y in zip(subject.tensors, point.tensors, strict=True)
                ],
                title,
            )


def equal_sizes(subject: Subject) -> Iterator[Subject]:
    """Every size becomes the last one of the first input: squares hide transposes."""
    first = _first(subject)
    if not first.ndim:
        return
    target = first.shape[-1]
    sizes = _sizes(subject)
    for size in sizes[:4]:
        if size != target and target > 1:
            tried = [_resized(subject, size, target, _everywhere)]
            title = f"size {target} instead of {size}"
            yield from _first_that_runs(subject, tried, title)


def one_dimension_alone(subject: Subject) -> Iterator[Subject]:
    """A single dimension of a single input becomes another, where that is allowed."""
    for place, x in enumerate(subject.tensors[:3]):
        for dim, size in list(enumerate(x.shape))[:5]:
            shared = sum(shape.count(size) for shape in _shapes(subject)) > 1
            # Half of it, but never 1, which broadcasts.
            new = 3 if size == 1 else size // 2 if shared and size % 2 == 0 else 1
            if new == 1:
                continue
            leaves = list(subject.leaves)
            index = torch.arange(new, device=x.device) % size
            changed = x.index_select(dim, index)
            if symmetric(x) and not _square(changed):
                continue
            leaves[subject.places[place]] = _noisy(changed, x, subject)
            title = f"{subject.input_names[place]} of size {new} in dim {dim}"
            yield from _first_that_runs(subject, [leaves], title)


def extra_leading_dimension(subject: Subject) -> Iterator[Subject]:
    """One more dimension in front, where the forward takes it as one more batch."""
    first = _first(subject)
    if not first.ndim:
        return
    for alike in (_same_shape, _is_first, _same_leading):
        leaves = list(subject.leaves)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and alike(leaf, first):
                leaves[i] = torch.stack([leaf, leaf])
        point = _runs(subject, leaves, "an extra leading dimension")
        if point is not None and _batches(point, subject):
            noisy = [
                _noisy(new, old, subject) if isinstance(new, Tensor) else new
                for new, old in zip(leaves, subject.leaves, strict=True)
            ]
            yield from _first_that_runs(subject, [noisy], point.title)
            return


def extra_trailing_dimension(subject: Subject) -> Iterator[Subject]:
    """One more dimension at the end of everything: pixels instead of rows."""
    if not any(
        isinstance(a, Tensor) and not a.is_floating_point() and a.ndim
        for a in subject.leaves
    ):
        return
    leaves = [
        _noisy(torch.stack([a, a], -1), a, subject)
        if isinstance(a, Tensor) and a.ndim
        else a
        for a in subject.leaves
    ]
    yield from _first_that_runs(subject, [leaves], "an extra trailing dimension")


def _first(subject: Subject) -> Tensor:
    """The first input that nothing owns."""
    free = [i for i in subject.places if i >= subject.owned] or [0]
    tensors = [a for a in subject.leaves[subject.owned :] if isinstance(a, Tensor)]
    first = subject.leaves[free[0]]
    return first if first.ndim or not tensors else tensors[0]


def _shapes(subject: Subject) -> list[tuple[int, ...]]:
    return _shapes_of(subject.leaves)


def _sizes(subject: Subject) -> list[int]:
    """Of inputs and indices: a table alone may be bound to its size, as filters are."""
    shapes = _shapes_of(
        a
        for i, a in enumerate(subject.leaves)
        if i in subject.places or not (isinstance(a, Tensor) and a.is_floating_point())
    )
    return list(dict.fromkeys(n for shape in shapes for n in shape if n > 1))


def _shapes_of(leaves: Iterable[Any]) -> list[tuple[int, ...]]:
    return [tuple(a.shape) for a in leaves if isinstance(a, Tensor)]


def _new_size(size: int, tensors: list[Tensor], subject: Subject) -> int:
    tables = [
        t
        for t in tensors
        if t.is_floating_point() and not any(t is x for x in subject.tensors)
    ]
    if any(size in t.shape for t in tables):
        return size * next(m for m in (17, 5, 3) if size * m < 130 or m == 3)
    largest = max(t.numel() for t in tensors)
    fits = all(
        t.numel() // size ** (k := t.shape.count(size)) * ODD**k <= max(MOST, largest)
        for t in tensors
    )
    return ODD if fits and size != ODD else size + 3


def _batches(point: Subject, subject: Subject) -> bool:
    """Whether two equal samples give the same output twice, or its mean or sum."""
    for new, old in zip(point.outputs, subject.outputs, strict=True):
        near = 1e-6 * (largest_entry(old) or 1.0)
        targets = (old.expand(2, *old.shape), old, 2 * old)
        if not any(
            new.shape == t.shape and bool(((new - t).abs() <= near).all())
            for t in targets
        ):
            return False
    return True


def _first_that_runs(
    subject: Subject, candidates: Iterable[Leaves | None], title: str
) -> Iterator[Subject]:
    for leaves in candidates:
        point = None if leaves is None else _runs(subject, leaves, title)
        if point is not None:
            yield point
            return


def _runs(subject: Subject, leaves: Leaves, title: str) -> Subject | None:
    own = slice(subject.owned)
    if _shapes_of(leaves[own]) != _shapes_of(subject.leaves[own]):
        return None
    for old in subject.leaves:
        if isinstance(old, Tensor) and permutation(old):
            n, pairs = old.numel(), zip(subject.leaves, leaves, strict=True)
            if any(
                new.shape.count(n) != a.shape.count(n) or a is old is not new
                for a, new in pairs
                if isinstance(a, Tensor)
            ):
                return None
    point = subject.at(leaves, title)
    point.__dict__["differentiable"] = subject.differentiable
    outputs = attempt(lambda: point.outputs)
    if isinstance(outputs, Crash) or len(outputs) != len(subject.outputs):
        return None
    return point


def _resized(subject: Subject, size: int, new: int, which: Dims) -> Leaves | None:
    leaves: Leaves = list(subject.leaves)
    for i, leaf in enumerate(subject.leaves):
        if isinstance(leaf, Tensor):
            changed = leaf
            for dim in which(leaf, size, subject):
                index = torch.arange(new, device=leaf.device) % size
                changed = changed.index_select(dim, index)
            if changed is not leaf and symmetric(leaf):
                if not _square(changed):
                    return None
                changed = _definite(changed)
            if changed is not leaf:
                leaves[i] = _noisy(changed, leaf, subject)
    return leaves


def _square(x: Tensor) -> bool:
    return x.ndim >= 2 and x.shape[-1] == x.shape[-2]


def _definite(x: Tensor) -> Tensor:
    """A larger diagonal: repeated rows are singular, with one eigenvalue many times."""
    n = x.shape[-1]
    size = n * (largest_entry(x) or 1.0)
    diagonal = torch.linspace(1, 2, n, dtype=torch.float64, device=x.device)
    return x + torch.diag(size * diagonal).to(x.dtype)


def _everywhere(leaf: Tensor, size: int, subject: Subject) -> list[int]:
    return [dim for dim, n in enumerate(leaf.shape) if n == size]


def _first_only(leaf: Tensor, size: int, subject: Subject) -> list[int]:
    return _everywhere(leaf, size, subject)[-1:] if leaf is _first(subject) else []


def _leading(leaf: Tensor, size: int, subject: Subject) -> list[int]:
    return [0] if leaf.ndim and leaf.shape[0] == size else []


def _same_shape(leaf: Tensor, first: Tensor) -> bool:
    return leaf.shape == first.shape


def _is_first(leaf: Tensor, first: Tensor) -> bool:
    return leaf is first


def _same_leading(leaf: Tensor, first: Tensor) -> bool:
    return leaf.shape[:1] == first.shape[:1]


def _noisy(new: Tensor, old: Tensor, subject: Subject) -> Tensor:
    """Repeated entries are ties: move them apart where they are just numbers."""
    if not (old.is_floating_point() or old.is_complex()):
        return new
    if fixed(old) or constant(old) or not any(old is x for x in subject.tensors):
        return new
    generator = torch.Generator().manual_seed(subject.seed + 78)
    noise = 0.3 * (largest_entry(old) or 1.0) * normal_like(new, generator)
    return within_bounds(new + noise, old)
