"""Layers of one kind in the order of depth, and the slope of a quantity over them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._snapshot import Row

Array = NDArray[np.float64]

LEAST = 4
"""A profile has at least so many layers."""

MOST = 32
"""A slope is taken over at most so many, evenly spaced: it compares all pairs."""


class Profile(NamedTuple):
    """Parameters that play the same part, one after the other.

    Attributes:
        part: `"weights"`, `"biases"` or `"outputs"`.
        rows: Their places among the rows, the first layer first.
    """

    part: str
    rows: NDArray[np.intp]


class Slope(NamedTuple):
    """What a step in depth changes in log₁₀ of a quantity.

    Attributes:
        slope: The median of the slopes between any two layers (Theil, Sen).
        low: The lower end of its confidence interval, from the ranks of the slopes.
        high: The upper end.
        span: log₁₀ of the last layer over the first, along the slope.
    """

    slope: float
    low: float
    high: float
    span: float


def is_weight(row: Row) -> bool:
    """Whether a row is a parameter of two dimensions or more, a map between layers.

    Args:
        row: Any row.
    """
    if row.kind != "parameter":
        return False
    if row.shape is None:
        return "weight" in row.name.rpartition(".")[2]
    return len(row.shape) > 1


def layer_of(row: Row) -> str:
    """The module that owns a parameter.

    Args:
        row: The parameter's row.
    """
    return row.name.rpartition(".")[0] or "root"


def biases(rows: Sequence[Row]) -> list[int]:
    """Places of the vectors that belong to a weight: not those of a normalization.

    Args:
        rows: All rows.
    """
    owners = {layer_of(row) for row in rows if is_weight(row)}
    return [
        i
        for i, row in enumerate(rows)
        if row.kind == "parameter"
        and not is_weight(row)
        and "bias" in row.name.rpartition(".")[2]
        and layer_of(row) in owners
    ]


def pairs(rows: Sequence[Row]) -> tuple[tuple[int, int], ...]:
    """Places of a layer's first weight and its bias, the first layer first.

    Args:
        rows: All rows.
    """
    weights: dict[str, int] = {}
    for i, row in enumerate(rows):
        if is_weight(row):
            weights.setdefault(layer_of(row), i)
    of_layer = {layer_of(rows[i]): i for i in reversed(biases(rows))}
    return tuple((i, of_layer[name]) for name, i in weights.items() if name in of_layer)


def profiles(rows: Sequence[Row]) -> tuple[Profile, ...]:
    """The largest group of weights of one kind, and that of their biases.

    Of one kind are parameters of one shape whose names differ in numbers only. Where no
    such group has four, all weights make one. Where there are no parameters, outputs
    of modules take their place.

    Args:
        rows: All rows, in the order of the model.
    """
    found: list[Profile] = []
    weights = [i for i, row in enumerate(rows) if is_weight(row)]
    of_parameters = any(row.kind == "parameter" for row in rows)
    outputs = (
        [] if of_parameters else [i for i, r in enumerate(rows) if r.kind == "layer"]
    )
    parts = (("weights", weights), ("biases", biases(rows)), ("outputs", outputs))
    for part, places in parts:
        groups: dict[object, list[int]] = {}
        for i in places:
            key = re.sub(r"\d+", "*", rows[i].name), rows[i].shape
            groups.setdefault(key, []).append(i)
        best = max(groups.values(), key=len, default=[])
        chosen = best if len(best) >= LEAST else places
        if len(chosen) >= LEAST:
            found.append(Profile(part, np.array(chosen, dtype=np.intp)))
    return tuple(found)


def steady(y: Array) -> float:
    """What a step in depth changes in the middle: half the median of y₂ − y₀, y₃ − y₁.

    One jump, as where a mean over positions makes one output of many, does not move
    it, nor do layers and activation functions in turn.

    Args:
        y: One number a layer; NaN are left out.

    Example:
        >>> steady(np.array([0.0, 1.0, 2.0, 3.0, 40.0, 41.0, 42.0, 43.0]))
        1.0
    """
    y = y[np.isfinite(y)]
    return float(np.median(y[2:] - y[:-2])) / 2 if len(y) > 2 else math.nan


def slope(y: Array, z: float = 1.96) -> Slope | None:
    """The robust slope of y over 0, 1, …; NaN are left out.

    The interval is Sen's (1968): with N slopes between n points, sorted, it runs from
    the (N − C)/2-th to the (N + C)/2-th, C = z √(n (n − 1) (2n + 5) / 18).

    Args:
        y: One number a layer.
        z: Quantile of the normal distribution for the interval.

    Returns:
        The slope; None for fewer than four numbers.

    Example:
        >>> slope(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 6.0])).slope
        1.0
    """
    x = np.flatnonzero(np.isfinite(y))
    if len(x) > MOST:
        x = x[np.linspace(0, len(x) - 1, MOST).round().astype(np.intp)]
    n = len(x)
    if n < LEAST:
        return None
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[x[j]] - y[x[i]]) / (x[j] - x[i]))
    wide = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, math.floor((len(slopes) - wide) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + wide) / 2))
    half = len(slopes) // 2
    middle = float(slopes[half] + slopes[-1 - half]) / 2
    return Slope(
        middle, float(slopes[low]), float(slopes[high]), middle * float(x[-1] - x[0])
    )
