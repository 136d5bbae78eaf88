"""What clipping does: the norms before it, kept until those after it are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._snapshot import Snapshot
from ..quantities import Moment, Norm, Quantity
from ._layers import Layers
from ._measure import measure
from ._reading import Table, assemble, gradients

_BEFORE, _AFTER = Norm("value"), Norm()


class Early(NamedTuple):
    """What was read before clipping.

    Attributes:
        snapshot: The numbers.
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


class Clipping:
    """Compares the norms of the gradients before and after clipping.

    Args:
        quantities: Those of the feed `clipping`.
    """

    def __init__(self, quantities: Sequence[Quantity]) -> None:
        self.quantities = tuple(quantities)
        self._norms: dict[int, tuple[Layers, list[int], Tensor]] = {}

    @torch.no_grad()
    def before(self, key: int, layers: Layers, scale: float | Tensor) -> None:
        """Clipping begins.

        Args:
            key: Whose gradients they are.
            layers: The parameters.
            scale: What the gradients are multiplied by.
        """
        if self.quantities:
            self._norms[key] = (layers, *_norms(layers, scale))

    @torch.no_grad()
    def after(
        self, key: int, layers: Layers, scale: float | Tensor, total: str
    ) -> Table | None:
        """Clipping has ended.

        Args:
            key: Whose gradients they are.
            layers: The parameters.
            scale: What the gradients are multiplied by.
            total: The name of the total row.

        Returns:
            The table; None if nobody said when clipping began.
        """
        known, there, before = self._norms.pop(key, (None, [], None))
        if known is not layers or before is None:
            return None
        now, after = _norms(layers, scale)
        if now != there:
            return None
        found: dict[Moment, Tensor] = {_BEFORE: before, _AFTER: after}
        return assemble(layers, there, found, self.quantities, total)

    def between(self, before: Snapshot, after: Snapshot) -> Table | None:
        """The same from two snapshots, where these have the norms already.

        Args:
            before: What was read before clipping.
            after: What was read after it.

        Returns:
            The table; None if the norm was not measured, or of other rows.
        """
        if (
            not self.quantities
            or "grad_norm" not in after.quantities
            or before.rows != after.rows
        ):
            return None
        norms = before.column("grad_norm"), after.column("grad_norm")
        columns = [
            quantity(torch.ones_like(norms[0]), *norms) for quantity in self.quantities
        ]
        k = after.quantities.index("grad_norm")
        there = (before.available & after.available)[:, k : k + 1]
        return Table(
            after.rows,
            torch.stack(columns, dim=1),
            there.expand(-1, len(columns)),
        )

    def forget(self) -> None:
        """Forget what has begun."""
        self._norms.clear()


def _norms(layers: Layers, scale: float | Tensor) -> tuple[list[int], Tensor]:
    pairs = gradients(layers)
    there = [i for i, pair in enumerate(pairs) if pair is not None]
    found = [pair for pair in pairs if pair is not None]
    return there, measure([_AFTER], found, scale, device=layers.device)[0]
