"""One reading: the table of a snapshot, from one pair of tensors a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._snapshot import Row
from ..quantities import Quantity
from ._layers import Layers
from ._measure import Pair, measure
from ._shards import Sharding


class Table(NamedTuple):
    """Rows, and their numbers as a snapshot has them."""

    rows: tuple[Row, ...]
    values: Tensor
    available: Tensor


def gradients(layers: Layers) -> list[Pair | None]:
    """Each parameter with its gradient as it is now; None where there is none.

    Args:
        layers: The parameters.
    """
    return [
        None if grad is None else (parameter, grad)
        for parameter in layers.parameters
        for grad in (parameter.grad,)
    ]


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
    if not there:
        return _nothing(layers, len(quantities), total)
    numbers = measure(
        moments,
        [pair for pair in pairs if pair is not None],
        scale,
        None if cut is None else [cut[i] for i in there],
        layers.device,
    )
    wholes = layers.wholes(there)
    combined = {
        moment: moment.combine(numbers[k][wholes.parts], wholes.owners, wholes.rows)
        for k, moment in enumerate(moments)
    }
    columns = [q(wholes.count, *(combined[m] for m in q.moments)) for q in quantities]
    values, available = torch.stack(columns, dim=1), wholes.available
    if len(there) < len(pairs):
        values[~available] = torch.nan
    if layers.kept is not None:
        values, available = values[layers.kept], available[layers.kept]
    # One column a quantity, and each says the same.
    available = available[:, None].expand(-1, len(quantities))
    return Table(layers.named(total), values, available)


def _nothing(layers: Layers, quantities: int, total: str) -> Table:
    rows = layers.named(total)
    values = torch.full((len(rows), quantities), torch.nan, dtype=torch.float64)
    return Table(rows, values, torch.zeros_like(values, dtype=torch.bool))
