"""One reading: the table of a snapshot, from one pair of tensors a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .._snapshot import Row
from ..quantities import Moment, Quantity
from ._layers import Layers
from ._measure import Pair, measure


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
) -> Table:
    """Measure one pair a parameter, and combine them to layers and the total.

    Args:
        layers: The rows, and the parameters they stand for.
        pairs: A value and a gradient for each parameter; None where there is none.
        quantities: What to measure.
        scale: What the gradients were multiplied by; it is divided out.
        total: The name of the total row.
    """
    there = [i for i, pair in enumerate(pairs) if pair is not None]
    moments = moments_of(tuple(quantities))
    found = [pair for pair in pairs if pair is not None]
    numbers = measure(moments, found, scale, layers.device)
    measured = dict(zip(moments, numbers, strict=True))
    return assemble(layers, there, measured, quantities, total)


@lru_cache
def moments_of(quantities: tuple[Quantity, ...]) -> list[Moment]:
    """The moments of quantities, each once.

    Args:
        quantities: The quantities.
    """
    return list(dict.fromkeys(m for q in quantities for m in q.moments))


def assemble(
    layers: Layers,
    there: Sequence[int],
    moments: Mapping[Moment, Tensor],
    quantities: Sequence[Quantity],
    total: str = "total",
) -> Table:
    """Combine the moments of parameters to layers and the total.

    Args:
        layers: The rows, and the parameters they stand for.
        there: Places of the parameters that were measured.
        moments: float64 `[there]` on the CPU for each moment.
        quantities: What to make of them.
        total: The name of the total row.
    """
    rows = layers.named(total)
    if not there:
        values = torch.full((len(rows), len(quantities)), torch.nan, dtype=_WIDE)
        return Table(rows, values, torch.zeros_like(values, dtype=torch.bool))
    wholes = layers.wholes(there)
    combined = {
        moment: moment.combine(
            torch.from_numpy(numbers.numpy()[wholes.places]),
            wholes.owners,
            wholes.rows,
        )
        for moment, numbers in moments.items()
    }
    columns = [q(wholes.count, *(combined[m] for m in q.moments)) for q in quantities]
    values, available = torch.stack(columns, dim=1), wholes.available
    if len(there) < len(layers.parameters):
        values[~available] = torch.nan
    if layers.kept is not None:
        values, available = values[layers.kept], available[layers.kept]
    # One column a quantity, and each says the same.
    return Table(rows, values, available[:, None].expand(-1, len(quantities)))


_WIDE = torch.float64
