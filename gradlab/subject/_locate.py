"""Where a gradient is wrong, in words: the share, the worst entry, and a pattern.

A pattern is said only if it is exactly the set of wrong entries: one slice, a tail, a
region of the input, a value of an integer input, an index that occurs twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._subject import Subject


def locate(wrong: Tensor, error: Tensor, subject: Subject, place: int) -> str:
    """Says which entries of the gradient of one input are wrong.

    Args:
        wrong: Which entries are.
        error: How much, of the same shape.
        subject: The function and the point.
        place: Index into `subject.tensors`.

    Returns:
        The share, the worst index, and a pattern where there is one.
    """
    count, total = int(wrong.sum()), wrong.numel()
    if not count:
        return ""
    flat = int(error.abs().nan_to_num(torch.inf).reshape(-1).argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(flat), error.shape)]
    if count == total:
        return "every entry" + (f", worst at {index}" if index else "")
    share = f"{count} of {total} entries, worst at {index}"
    pattern = next(_patterns(wrong, subject, place), "")
    return f"{share}: only {pattern}" if pattern else share


def _patterns(wrong: Tensor, subject: Subject, place: int) -> Iterator[str]:
    """Patterns that are the set of wrong entries, the most telling first."""
    yield from _special_values(wrong, subject, place)
    yield from _integers(wrong, subject)
    yield from _slices(wrong)
    yield from _thresholds(wrong, subject, place)
    yield from _diagonal(wrong)


def _special_values(wrong: Tensor, subject: Subject, place: int) -> Iterator[str]:
    """Entries of a float input that are exactly zero."""
    for name, x in _floats(wrong, subject, place):
        if torch.equal(wrong, x == 0):
            yield f"where {name} == 0"


def _floats(
    wrong: Tensor, subject: Subject, place: int
) -> Iterator[tuple[str, Tensor]]:
    """Float inputs of the shape of the gradient, its own input first."""
    own = subject.places[place]
    order = [own, *(i for i in range(len(subject.leaves)) if i != own)]
    for i in order:
        leaf = subject.leaves[i]
        if not isinstance(leaf, Tensor) or leaf.shape != wrong.shape:
            continue
        if leaf.is_floating_point() or leaf.is_complex():
            yield subject.names[i], leaf.detach()


def _integers(wrong: Tensor, subject: Subject) -> Iterator[str]:
    """Where an integer or bool input has one value, or an index occurs twice."""
    for leaf, name in zip(subject.leaves, subject.names, strict=True):
        if not isinstance(leaf, Tensor) or not leaf.numel():
            continue
        if leaf.is_floating_point() or leaf.is_complex():
            continue
        rows = _rows(wrong, leaf)
        if rows is not None:
            values, counts = torch.unique(leaf, return_counts=True)
            # One row with a value of its own is better told by its index.
            telling = (counts > 1) | (values < 0)
            special = values[telling][:32].tolist()
            for value in special:
                if torch.equal(rows, leaf == value):
                    yield f"where {name} == {value}"
            for value in special:
                if torch.equal(rows, leaf != value):
                    yield f"where {name} != {value}"
            if leaf.dtype != torch.bool:
                often = torch.isin(leaf, values[counts > 1])
                if torch.equal(rows, often):
                    yield f"where the value of {name} occurs more than once"
        if leaf.dtype != torch.bool and wrong.ndim:
            yield from _indexed_rows(wrong, leaf, name)


def _rows(wrong: Tensor, leaf: Tensor) -> Tensor | None:
    """The wrong entries on the axes of another input, if they fill all others."""
    if leaf.shape == wrong.shape:
        return wrong
    lead, trail = wrong.shape[: leaf.ndim], wrong.shape[wrong.ndim - leaf.ndim :]
    if not 0 < leaf.ndim < wrong.ndim:
        return None
    if leaf.shape == lead:
        flat = wrong.flatten(leaf.ndim)
        return flat.any(-1)
    if leaf.shape == trail:
        return wrong.flatten(0, wrong.ndim - leaf.ndim - 1).any(0)
    return None


def _indexed_rows(wrong: Tensor, leaf: Tensor, name: str) -> Iterator[str]:
    """Rows of a table that an index input names, by how often it does."""
    rows = wrong.flatten(1).any(1) if wrong.ndim > 1 else wrong
    low, high = int(leaf.min()), int(leaf.max())
    if low < 0 or high >= rows.numel() or leaf.numel() < 2:
        return
    counts = torch.bincount(leaf.reshape(-1).long(), minlength=rows.numel())
    if torch.equal(rows, counts > 1):
        yield f"rows whose index occurs more than once in `{name}`"
    elif torch.equal(rows, counts > 0):
        yield f"rows whose index occurs in `{name}`"
    elif torch.equal(rows, counts == 0):
        yield f"rows whose index does not occur in `{name}`"


def _slices(wrong: Tensor) -> Iterator[str]:
    """One index, a head or a tail of one dim, or a tail of the memory."""
    if int(wrong.sum()) == 1 and bool(wrong.reshape(-1)[0]):
        yield "the first entry"
    for dim, n in enumerate(wrong.shape):
        whole = wrong.movedim(dim, 0).reshape(n, -1)
        indices = whole.any(1).nonzero().reshape(-1).tolist()
        first, last = indices[0], indices[-1]
        if len(indices) == n or not bool(whole[indices].all()):
            continue
        if first == last:
            kind = "row" if dim == 0 else "channel" if dim == 1 else "index"
            place = {0: "the first ", n - 1: "the last "}.get(first, "")
            yield f"{place}{kind} {first} (dim {dim} of {n})"
        elif last - first + 1 == len(indices):
            if last == n - 1:
                yield f"from index {first} of dim {dim} on{_tail(first)}"
            elif first == 0:
                yield f"up to index {last} of dim {dim}"
            else:
                yield f"indices {first} to {last} of dim {dim}"
    flat = wrong.reshape(-1).nonzero().reshape(-1)
    first = int(flat[0])
    if wrong.ndim > 1 and len(flat) == wrong.numel() - first and first > 1:
        yield f"from flat index {first} on{_tail(first)}"


def _tail(first: int) -> str:
    """Kernels work in blocks of 2ⁿ; what starts at one may be a tail left out."""
    return " (a block tail?)" if first >= 8 and first % 8 == 0 else ""


def _thresholds(wrong: Tensor, subject: Subject, place: int) -> Iterator[str]:
    """Where a float input is above or below a number, or its magnitude is."""
    if int(wrong.sum()) < 2 or int((~wrong).sum()) < 2:
        return
    for name, x in _floats(wrong, subject, place):
        forms = [(f"|{name}|", x.abs())]
        if not x.is_complex():
            forms.insert(0, (name, x))
        for form, value in forms:
            inside, outside = value[wrong], value[~wrong]
            if float(inside.min()) > float(outside.max()):
                bound = _short(float(outside.max()), float(inside.min()))
                yield f"where {form} > {bound}"
            elif float(inside.max()) < float(outside.min()):
                bound = _short(float(inside.max()), float(outside.min()))
                yield f"where {form} < {bound}"


def _diagonal(wrong: Tensor) -> Iterator[str]:
    if wrong.ndim < 2 or wrong.shape[-1] != wrong.shape[-2] or wrong.shape[-1] < 2:
        return
    ones = torch.ones_like(wrong)
    for what, where in (
        ("the diagonal", ones.triu().tril()),
        ("entries off the diagonal", ~ones.triu().tril()),
        ("the upper triangle", ones.triu(1)),
        ("the lower triangle", ones.tril(-1)),
    ):
        if torch.equal(wrong, where):
            yield what


def _short(low: float, high: float) -> str:
    """The number with the fewest digits between two others."""
    middle = (low + high) / 2
    for digits in range(12):
        for value in (round(middle, digits), round(low, digits), round(high, digits)):
            if low <= value <= high:
                return f"{value + 0.0:g}"
    return f"{middle:g}"
