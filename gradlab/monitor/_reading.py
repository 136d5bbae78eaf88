"""One reading: the table of a snapshot, from the gradients as they are now."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._snapshot import Row
from ..quantities import Moment, Quantity
from ._layers import Layers, trainable_layers
from ._measure import Pair, measure
from ._shards import Sharding


class Table(NamedTuple):
    """Rows, and their numbers as a snapshot has them."""

    rows: tuple[Row, ...]
    values: Tensor
    available: Tensor


def read_gradients(
    model: nn.Module,
    quantities: Sequence[Quantity],
    scale: float | Tensor = 1.0,
    only: Collection[int] | None = None,
    total: str = "total",
) -> Table:
    """Measure the gradients of a model: the total, its layers, its parameters.

    Args:
        model: The model.
        quantities: What to measure, of the feed `gradient`.
        scale: What the gradients were multiplied by; it is divided out.
        only: Identities of the parameters to read; None reads all.
        total: The name of the total row.
    """
    layers = trainable_layers(model, only)
    pairs = [None if p.grad is None else (p, p.grad) for p in layers.parameters]
    return tabulate(layers, pairs, quantities, scale, total)


def tabulate(
    layers: Layers,
    pairs: Sequence[Pair | None],
    quantities: Sequence[Quantity],
    scale: float | Tensor = 1.0,
    total: str = "total",
    cut: Sequence[Sharding | None] | None = None,
) -> Table:
    """Measure one pair a parameter, and combine them to layers and the total.

    Args:
        layers: The rows, and the parameters they stand for.
        pairs: A value and a gradient for each parameter; None where there is none.
        quantities: What to measure.
        scale: What the gradients were multiplied by; it is divided out.
        total: The name of the total row.
        cut: How the tensors of `pairs` are cut, if these are local parts already.
    """
    there = [i for i, pair in enumerate(pairs) if pair is not None]
    moments = list(dict.fromkeys(m for q in quantities for m in q.moments))
    columns = measure(
        moments,
        [pair for pair in pairs if pair is not None],
        scale,
        None if cut is None else [cut[i] for i in there],
    )
    parts: list[_Part | None] = [None] * len(pairs)
    for i, *numbers in zip(there, *columns, strict=True):
        parts[i] = _Part(layers.parameters[i].numel(), tuple(numbers))
    ends = accumulate(layers.sizes, initial=0)
    groups = [slice(0, len(parts)), *(slice(*span) for span in pairwise(ends))]
    wholes = [*(_combine(moments, parts[group]) for group in groups), *parts]
    places = [[moments.index(m) for m in q.moments] for q in quantities]
    table = [
        [
            None
            if whole is None
            else q(whole.count, *(whole.moments[k] for k in place))
            for whole in wholes
        ]
        for q, place in zip(quantities, places, strict=True)
    ]
    return Table(
        (Row(total, "total"), *layers.layers, *layers.rows),
        torch.tensor(
            [[math.nan if n is None else n for n in column] for column in table],
            dtype=torch.float64,
        ).T,
        torch.tensor([[n is not None for n in column] for column in table]).T,
    )


class _Part(NamedTuple):
    """How many entries something has, and their moments."""

    count: int
    moments: tuple[float, ...]


def _combine(moments: Sequence[Moment], parts: Sequence[_Part | None]) -> _Part | None:
    """The whole that those parts make that have a gradient."""
    there = [part for part in parts if part is not None]
    if not there:
        return None
    columns = zip(*(part.moments for part in there), strict=True)
    combined = (m.combine(c) for m, c in zip(moments, columns, strict=True))
    return _Part(sum(part.count for part in there), tuple(combined))
