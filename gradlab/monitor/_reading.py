"""One reading: the table of a snapshot, from the gradients as they are now."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._snapshot import Row
from ..quantities import Quantity
from ._layers import trainable_layers
from ._measure import measure


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
        quantities: What to measure.
        scale: What the gradients were multiplied by; it is divided out.
        only: Identities of the parameters to read; None reads all.
        total: The name of the total row.

    A sharded gradient (DTensor) is refused.
    """
    layers, sizes, rows, parameters = trainable_layers(model, only)
    grads = [_whole(r, p.grad) for r, p in zip(rows, parameters, strict=True)]
    present = [i for i, grad in enumerate(grads) if grad is not None]
    measured = measure(
        quantities,
        [(p, g) for p, g in zip(parameters, grads, strict=True) if g is not None],
        scale,
    )
    ends = accumulate(sizes, initial=0)
    groups = [slice(0, len(rows)), *(slice(*span) for span in pairwise(ends))]
    columns: list[list[float | None]] = []
    for quantity, found in zip(quantities, measured, strict=True):
        numbers: list[float | None] = [None] * len(rows)
        for i, number in zip(present, found, strict=True):
            numbers[i] = number
        combined = [_combine(quantity, numbers[group]) for group in groups]
        columns.append([*combined, *numbers])
    return Table(
        (Row(total, "total"), *layers, *rows),
        torch.tensor(
            [[math.nan if n is None else n for n in column] for column in columns],
            dtype=torch.float64,
        ).T,
        torch.tensor([[n is not None for n in column] for column in columns]).T,
    )


def _combine(quantity: Quantity, numbers: Sequence[float | None]) -> float | None:
    """The number of those parameters that have one."""
    there = [number for number in numbers if number is not None]
    return quantity.combine(there) if there else None


def _whole(row: Row, grad: Tensor | None) -> Tensor | None:
    """The gradient, if it is not a shard: its local norm would pass for the norm."""
    # DTensor's own method: asking for it does not import torch.distributed.
    if hasattr(grad, "full_tensor"):
        raise NotImplementedError(
            f"gradlab reads whole gradients, got a sharded one (DTensor) for {row.name}"
            "; FSDP2 and tensor parallelism are not supported yet"
        )
    return grad
