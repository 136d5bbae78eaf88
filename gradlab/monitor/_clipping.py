"""What clipping does: the norms before it, held against those after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._snapshot import Snapshot
from ..quantities import GradNorm, Quantity
from ._reading import Table

NORM = GradNorm()


class Early(NamedTuple):
    """What was read before clipping.

    Attributes:
        snapshot: The numbers, the norm among them.
        versions: The gradients that were read.
    """

    snapshot: Snapshot
    versions: list[object]


def versions(parameters: Sequence[Tensor]) -> list[object]:
    """The gradients as they are now: the same list as long as nobody writes to them.

    Args:
        parameters: Whose gradients.
    """
    return [_version(p.grad) for p in parameters]


def _version(grad: Tensor | None) -> object:
    """Which tensor it is, and how often it was written to."""
    if grad is None:
        return None
    # What is written to a DTensor is not counted: it is never the same.
    return object() if hasattr(grad, "to_local") else (id(grad), grad._version)


def clipped(
    before: Snapshot, after: Snapshot, quantities: Sequence[Quantity]
) -> Table | None:
    """The quantities of the feed `clipping`.

    Args:
        before: What was read before clipping, the norm among it.
        after: What was read after it, the norm among it.
        quantities: The quantities.

    Returns:
        The table; None if there is nothing to measure, or the rows are others.
    """
    if not quantities or before.rows != after.rows:
        return None
    norms = before.column(NORM.name), after.column(NORM.name)
    columns = [quantity(torch.ones_like(norms[0]), *norms) for quantity in quantities]
    k, n = after.quantities.index(NORM.name), len(columns)
    there = (before.available & after.available)[:, k : k + 1].expand(-1, n)
    return Table(after.rows, torch.stack(columns, dim=1), there)


def without(snapshot: Snapshot, names: Sequence[str]) -> Snapshot | None:
    """A snapshot without some quantities; None if none is left.

    Args:
        snapshot: The snapshot.
        names: The quantities to leave out.
    """
    keep = [i for i, name in enumerate(snapshot.quantities) if name not in names]
    if len(keep) == len(snapshot.quantities):
        return snapshot
    if not keep:
        return None
    left = tuple(snapshot.quantities[i] for i in keep)
    numbers = snapshot.values[:, keep], snapshot.available[:, keep]
    return Snapshot(snapshot.step, snapshot.stage, snapshot.rows, left, *numbers)
