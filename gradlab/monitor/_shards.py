"""Sharded gradients (DTensor: FSDP2, tensor parallelism): their parts, then the whole.

A rank holds a shard, possibly an empty one. Its moments are those of a part; the ranks
that hold the other parts are asked for theirs with one sum, and one maximum where a
moment is one, for all tensors of a mesh at once. What is replicated counts once.
"""

from __future__ import annotations

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
    if not hasattr(grad, "full_tensor"):
        return value, grad, None
    placed: Any = _summed(grad)
    dims = tuple(i for i, p in enumerate(placed.placements) if p.is_shard())
    sharding = Sharding(placed.device_mesh, dims) if dims else None
    whole: Any = value
    kept = whole.to_local() if hasattr(value, "to_local") else value
    return kept.detach(), placed.to_local(), sharding


def reduce_over_shards(
    moments: Sequence[Moment], table: Tensor, shardings: Sequence[Sharding | None]
) -> Tensor:
    """Combines the moments of shards over the ranks that hold them.

    Args:
        moments: What was measured.
        table: float64 `[moments, tensors]` on the CPU; it is written to.
        shardings: How each tensor is cut.

    Returns:
        The same table with the moments of whole tensors.
    """
    for sharding in dict.fromkeys(s for s in shardings if s is not None):
        where = [i for i, s in enumerate(shardings) if s == sharding]
        for dim in sharding.dims:
            table[:, where] = _over(sharding.mesh, dim, moments, table[:, where])
    return table


def _over(mesh: Any, dim: int, moments: Sequence[Moment], table: Tensor) -> Tensor:
    norms = [k for k, moment in enumerate(moments) if moment.reduce == "norm"]
    tops = [k for k, moment in enumerate(moments) if moment.reduce == "max"]
    table[norms] = table[norms].square()
    # A maximum forgets NaN on some backends: count them with the sums.
    lost = table[tops].isnan()
    summed = _all_reduce(mesh, dim, torch.cat([table, lost.double()]), "SUM")
    reduced = summed[: len(moments)]
    if tops:
        largest = table[tops].masked_fill(lost, -torch.inf)
        largest = _all_reduce(mesh, dim, largest, "MAX")
        reduced[tops] = largest.masked_fill(summed[len(moments) :] > 0, torch.nan)
    reduced[norms] = reduced[norms].sqrt()
    return reduced


def _all_reduce(mesh: Any, dim: int, numbers: Tensor, op: str) -> Tensor:
    import torch.distributed as dist

    tensor = numbers.to(mesh.device_type)
    try:
        dist.all_reduce(tensor, getattr(dist.ReduceOp, op), group=mesh.get_group(dim))
    except RuntimeError as error:
        raise RuntimeError(
            "of sharded gradients every rank reads its part at the same step, got no "
            f"answer from the others ({error}); watch on every rank, with the same "
            "every_n_steps, start, end and quantities"
        ) from error
    return tensor.cpu()


def _summed(grad: Any) -> Any:
    """A gradient whose parts are still to be added, added."""
    if not any(p.is_partial() for p in grad.placements):
        return grad
    from torch.distributed.tensor import Replicate

    placements = [Replicate() if p.is_partial() else p for p in grad.placements]
    return grad.redistribute(placements=placements)
