"""Sharded gradients (DTensor: FSDP2, tensor parallelism): their parts, then the whole.

A rank holds a shard, possibly an empty one. Its moments are those of a part; the ranks
that hold the other parts are asked for theirs with one sum, and one maximum where a
moment is one, for all tensors of a mesh at once. What is replicated counts once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..quantities import Moment


@dataclass(frozen=True)
class Sharding:
    """Over which dimensions of which mesh a tensor is cut.

    Attributes:
        mesh: The device mesh.
        dims: The mesh dimensions along which ranks hold different parts.
    """

    mesh: Any
    dims: tuple[int, ...]


def local(value: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Sharding | None]:
    """What this rank holds of a tensor and its gradient, and how they are cut.

    Args:
        value: The tensor.
        grad: Its gradient.

    Returns:
        Two plain tensors and the sharding; None for tensors that are whole.
    """
    # DTensor's own method: asking for it does not import torch.distributed.
    if not hasattr(grad, "full_tensor"):
        return value, grad, None
    placed: Any = _summed(grad)
    dims = tuple(i for i, p in enumerate(placed.placements) if p.is_shard())
    sharding = Sharding(placed.device_mesh, dims) if dims else None
    whole: Any = value
    kept = whole.to_local() if hasattr(value, "to_local") else value
    return kept.detach(), placed.to_local(), sharding


def reduce_over_shards(
    moments: Sequence[Moment],
    table: list[list[float]],
    shardings: Sequence[Sharding | None],
) -> list[list[float]]:
    """Combines the moments of shards over the ranks that hold them.

    Args:
        moments: What was measured.
        table: One list a moment, in the order of the tensors.
        shardings: How each tensor is cut.

    Returns:
        The same table with the moments of whole tensors.
    """
    for sharding in dict.fromkeys(s for s in shardings if s is not None):
        where = [i for i, s in enumerate(shardings) if s == sharding]
        for dim in sharding.dims:
            _over(sharding.mesh, dim, moments, table, where)
    return table


def _over(
    mesh: Any,
    dim: int,
    moments: Sequence[Moment],
    table: list[list[float]],
    where: Sequence[int],
) -> None:
    adds = [k for k, moment in enumerate(moments) if moment.reduce != "max"]
    tops = [k for k, moment in enumerate(moments) if moment.reduce == "max"]
    square = [moments[k].reduce == "norm" for k in adds]
    sums = [
        table[k][i] ** 2 if squared else table[k][i]
        for k, squared in zip(adds, square, strict=True)
        for i in where
    ]
    # A maximum forgets NaN on some backends: count them with the sums.
    lost = [float(math.isnan(table[k][i])) for k in tops for i in where]
    summed = _all_reduce(mesh, dim, [*sums, *lost], "SUM")
    largest = _all_reduce(
        mesh, dim, [max(table[k][i], -math.inf) for k in tops for i in where], "MAX"
    )
    for j, (k, squared) in enumerate(zip(adds, square, strict=True)):
        for n, i in enumerate(where):
            total = summed[j * len(where) + n]
            table[k][i] = math.sqrt(total) if squared else total
    for j, k in enumerate(tops):
        for n, i in enumerate(where):
            at = j * len(where) + n
            table[k][i] = math.nan if summed[len(sums) + at] else largest[at]


def _all_reduce(mesh: Any, dim: int, numbers: list[float], op: str) -> list[float]:
    if not numbers:
        return []
    import torch.distributed as dist

    device = "cpu" if mesh.device_type == "cpu" else mesh.device_type
    tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, getattr(dist.ReduceOp, op), group=mesh.get_group(dim))
    return tensor.tolist()


def _summed(grad: Any) -> Any:
    """A gradient whose parts are still to be added, added."""
    if not any(p.is_partial() for p in grad.placements):
        return grad
    from torch.distributed.tensor import Replicate

    placements = [Replicate() if p.is_partial() else p for p in grad.placements]
    return grad.redistribute(placements=placements)
