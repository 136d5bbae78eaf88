"""What a tensor seems to promise about its values, so that a generated one keeps it.

A backward may rely on probabilities that sum to one or on a symmetric matrix; a point
that breaks such a promise would blame it for nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fixed(x: Tensor) -> bool:
    """Whether the values look like more than numbers and should stay as they are.

    Whole numbers (masks, labels, one-hot rows), rows that sum to one or have unit
    length, and symmetric, triangular or sorted tensors.

    Args:
        x: A floating point or complex tensor.
    """
    if x.is_complex() or x.numel() < 2 or not bool(torch.isfinite(x).all()):
        return x.numel() > 0 and not bool(torch.isfinite(x).all())
    if constant(x):
        return False
    if bool((x == x.round()).all()):
        return True
    if x.ndim and x.shape[-1] > 1:
        one = torch.ones((), dtype=x.dtype)
        if _near(x.sum(-1), one) or _near(x.square().sum(-1), one):
            return True
        if x.shape[-1] > 4 and bool((x.diff(dim=-1) >= 0).all()):
            return True
    if x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1:
        return symmetric(x) or any(
            bool((part == x).all()) for part in (x.tril(), x.triu())
        )
    return False


def symmetric(x: Tensor) -> bool:
    """Whether it holds square matrices that equal their transposes, not by one value.

    Args:
        x: Any tensor.
    """
    square = x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1
    return square and not constant(x) and torch.equal(x, x.mT)


def constant(x: Tensor) -> bool:
    """Whether all entries are equal, as after `ones_` or `zeros_`.

    Args:
        x: A floating point or complex tensor.
    """
    return x.numel() > 1 and bool((x == x.reshape(-1)[0]).all())


def permutation(index: Tensor) -> bool:
    """Whether an integer tensor orders its own positions, along a first or last dim.

    Args:
        index: Any tensor.
    """
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        return False
    if not index.ndim or index.numel() < 2:
        return False
    for dim in {0, index.ndim - 1}:
        ordered = index.sort(dim).values.movedim(dim, -1)
        positions = torch.arange(index.shape[dim], device=index.device)
        if index.shape[dim] > 1 and bool((ordered == positions).all()):
            return True
    return False


def within_bounds(new: Tensor, old: Tensor) -> Tensor:
    """`new` with the sign that `old` never leaves, and inside (0, 1) if `old` is.

    Args:
        new: Proposed values.
        old: The values that were given.
    """
    if old.is_complex() or not old.numel() or constant(old):
        return new
    low, high = float(old.min()), float(old.max())
    if low >= 0 and high <= 1:
        return new.abs() - new.abs().floor()
    if low >= 0:
        return new.abs()
    return -new.abs() if high <= 0 else new


def _near(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() < 1e-5).all())
