"""Measures many gradients with few kernels and one transfer a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..quantities import Moment
from ._shards import Sharding, local, reduce_over_shards

Pair = tuple[Tensor, Tensor]
NO_FLOAT64 = {"mps"}


def measure(
    moments: Sequence[Moment],
    pairs: Sequence[Pair],
    scale: float | Tensor = 1.0,
    cut: Sequence[Sharding | None] | None = None,
) -> list[list[float]]:
    """Each moment of each pair, on the host.

    Of a sharded tensor (DTensor) every rank measures its shard, and one collective
    brings all of them together: every rank must measure at the same step.

    Args:
        moments: What to measure.
        pairs: Values and their gradients, on any devices.
        scale: What the gradients were multiplied by; it is divided out.
        cut: How the tensors are cut whose local parts are given; None: they say it.

    Returns:
        One list a moment, in the order of the pairs.
    """
    shards = (
        [local(value, grad) for value, grad in pairs]
        if cut is None
        else [(*pair, sharding) for pair, sharding in zip(pairs, cut, strict=True)]
    )
    table = [[0.0] * len(pairs) for _ in moments]
    for device in dict.fromkeys(grad.device for _, grad, _ in shards):
        where = [i for i, (_, grad, _) in enumerate(shards) if grad.device == device]
        here = [shards[i][:2] for i in where]
        factor, columns = _transfer(moments, here, scale)
        values, grads = [v for v, _ in here], [g for _, g in here]
        for moment, row, column in zip(moments, table, columns, strict=True):
            refined = moment.refine(values, grads, column)
            for i, number in zip(where, refined, strict=True):
                row[i] = number / factor**moment.degree
    shardings: list[Sharding | None] = [sharding for *_, sharding in shards]
    return reduce_over_shards(moments, table, shardings)


def _transfer(
    moments: Sequence[Moment], pairs: Sequence[Pair], scale: float | Tensor
) -> tuple[float, list[list[float]]]:
    """The scale and the columns of one device, brought to the host at once."""
    values, grads = [value for value, _ in pairs], [grad for _, grad in pairs]
    device = grads[0].device
    wide = torch.float32 if device.type in NO_FLOAT64 else torch.float64
    columns = [moment(values, grads).to(wide) for moment in moments]
    if isinstance(scale, Tensor):
        columns.append(scale.reshape(1).to(device, wide, non_blocking=True))
    numbers = torch.cat(columns).tolist()
    factor = numbers.pop() if isinstance(scale, Tensor) else scale
    n = len(pairs)
    return factor, [numbers[i * n : (i + 1) * n] for i in range(len(moments))]
