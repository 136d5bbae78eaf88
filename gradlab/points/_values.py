"""Other values in the same shapes: zeros, ties, large, tiny, duplicates, off init."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gradlab.subject import Subject, attempt, normal_like

from ._invariants import constant, fixed, permutation, within_bounds

FEW = 4
"""So many inputs get values of their own; the rest only move along."""


def off_default_values(subject: Subject) -> Iterator[Subject]:
    """Parameters that are all ones or all zeros hide factors and terms: move them."""
    tensors = [
        x + 0.5 * _draw(subject, x, i) if constant(x) else x
        for i, x in enumerate(subject.tensors)
    ]
    moved = [
        name
        for name, old, new in zip(
            subject.input_names, subject.tensors, tensors, strict=True
        )
        if old is not new
    ]
    if moved:
        yield subject.moved(tensors, f"random values for {', '.join(moved)}")


def fresh_values(subject: Subject) -> Iterator[Subject]:
    """Another random draw of everything, of the same size."""
    tensors = [
        x if fixed(x) else within_bounds(_draw(subject, x, i) * _rms(x), x)
        for i, x in enumerate(subject.tensors)
    ]
    yield subject.moved(tensors, "other random values")


def special_values(subject: Subject) -> Iterator[Subject]:
    """Zeros, ties, whole numbers, large and tiny values, in one input at a time.

    The third input and those after it change together.
    """
    free = [i for i, x in enumerate(subject.tensors) if not fixed(x) and x.numel()]
    for group in (free[:1], free[1:2], free[2:]):
        for name, change in _CHANGES.items():
            tensors = list(subject.tensors)
            for place in group:
                x = tensors[place]
                if not (x.is_complex() and name in _REAL_ONLY):
                    tensors[place] = within_bounds(change(x), x)
            if name == "some zeros in" and len(group) == 1:
                tensors = _where_finite(subject, group[0], tensors)
            moved = [
                subject.input_names[i]
                for i in group
                if not torch.equal(tensors[i], subject.tensors[i])
            ]
            if moved:
                yield subject.moved(tensors, f"{name} {', '.join(moved)}")


def equal_values(subject: Subject) -> Iterator[Subject]:
    """Zeros at the same places of all inputs; inputs of one shape that agree there."""
    # Not in single numbers: two bounds of an interval that are equal leave none.
    free = [i for i, x in enumerate(subject.tensors) if not fixed(x) and x.numel() > 1]
    if len(free) < 2:
        return
    tensors = list(subject.tensors)
    for i in free:
        tensors[i] = _some_zeros(tensors[i])
    yield subject.moved(tensors, "zeros at the same places")
    first = subject.tensors[free[0]]
    for i in free[1:FEW]:
        if subject.tensors[i].shape == first.shape:
            tensors = list(subject.tensors)
            tensors[i] = torch.where(_third(first), first, tensors[i])
            names = subject.input_names
            yield subject.moved(tensors, f"ties of {names[free[0]]} and {names[i]}")


def special_indices(subject: Subject) -> Iterator[Subject]:
    """Duplicates, ignored entries and other masks in integer and bool inputs."""
    numbers = {
        leaf
        for leaf in subject.leaves
        if isinstance(leaf, int) and not isinstance(leaf, bool)
    }
    for i, leaf in enumerate(subject.leaves):
        if not isinstance(leaf, Tensor) or leaf.is_floating_point():
            continue
        if leaf.is_complex() or leaf.numel() < 2 or permutation(leaf):
            continue
        name = subject.names[i]
        flat = leaf.reshape(-1)
        variants: dict[str, Tensor] = {}
        if leaf.dtype == torch.bool:
            variants[f"the opposite of {name}"] = ~flat
            variants[f"all of {name} true"] = torch.ones_like(flat)
            variants[f"one of {name} false"] = torch.arange(flat.numel()) != 0
        else:
            variants[f"duplicates in {name}"] = flat[torch.arange(flat.numel()) // 2]
            variants[f"one value everywhere in {name}"] = flat[:1].expand(flat.shape)
            variants[f"{name} in another order"] = flat.flip(0)
            high = int(leaf.max())
            for number in sorted({-100, 0, *numbers}):
                # An index out of range may corrupt memory; a target may be ignored.
                if not (0 <= number <= high or _is_target(leaf, subject)):
                    continue
                changed = flat.clone()
                changed[0] = number
                variants[f"{number} in {name}"] = changed
        for title, values in variants.items():
            if not torch.equal(values, flat):
                leaves = list(subject.leaves)
                leaves[i] = values.reshape(leaf.shape).clone()
                yield subject.at(leaves, title)


def _is_target(leaf: Tensor, subject: Subject) -> bool:
    """Whether there is one integer for each row of scores, classes in dim 1 or last."""
    return any(
        leaf.shape in (x.shape[:-1], x.shape[:1] + x.shape[2:])
        for x in subject.tensors
        if x.ndim > leaf.ndim
    )


def _some_zeros(x: Tensor) -> Tensor:
    return torch.where(_third(x), torch.zeros_like(x), x)


def _third(x: Tensor) -> Tensor:
    index = torch.arange(x.numel(), device=x.device)
    return (index % 3 == 0).view(x.shape)


def _where_finite(subject: Subject, place: int, tensors: list[Tensor]) -> list[Tensor]:
    """Takes back the zeros at which an output of the same shape is not finite."""
    with torch.no_grad():
        outputs = attempt(lambda: subject.run(tensors))
    if not isinstance(outputs, tuple):
        return tensors
    kept = list(tensors)
    for y in outputs:
        if y.shape == kept[place].shape:
            old = subject.tensors[place]
            kept[place] = torch.where(torch.isfinite(y), kept[place], old)
    return kept


def _ties(x: Tensor) -> Tensor:
    return (x / _rms(x)).round() * _rms(x)


_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "some zeros in": _some_zeros,
    "zeros for": torch.zeros_like,
    "ties in": _ties,
    "whole numbers for": lambda x: (3 * x / _rms(x)).round(),
    "5 times": lambda x: 5 * x,
    "1000 times": lambda x: 1e3 * x,
    "0.001 times": lambda x: 1e-3 * x,
}
_REAL_ONLY = ("ties in", "whole numbers for")


def _draw(subject: Subject, x: Tensor, i: int) -> Tensor:
    generator = torch.Generator().manual_seed(subject.seed + 77 + i)
    return normal_like(x, generator)


def _rms(x: Tensor) -> float:
    return float(x.abs().square().mean().sqrt()) if x.numel() and x.any() else 1.0
