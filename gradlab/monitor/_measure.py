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
    device: torch.device | None = None,
) -> Tensor:
    """Each moment of each pair, on the host.

    Of a sharded tensor (DTensor) every rank measures its shard, and one collective
    brings all of them together: every rank must measure at the same step.

    Args:
        moments: What to measure.
        pairs: Values and their gradients, on any devices.
        scale: What the gradients were multiplied by; it is divided out.
        device: Where all of them are; None looks.

    Returns:
        float64 `[moments, pairs]` on the CPU.
    """
    if not pairs:
        return torch.empty(len(moments), 0, dtype=torch.float64)
    values, grads = map(list, zip(*pairs, strict=True))
    shardings: list[Sharding | None] = []
    if {*map(type, grads)} != {Tensor}:
        for i, (value, grad) in enumerate(pairs):
            values[i], grads[i], sharding = local(value, grad)
            shardings.append(sharding)
    devices = {grad.device for grad in grads} if device is None else {device}
    if len(devices) <= 1:
        table = _on_a_device(moments, values, grads, scale)
    else:
        table = torch.empty(len(moments), len(pairs), dtype=torch.float64)
        for device in devices:
            where = [i for i, grad in enumerate(grads) if grad.device == device]
            table[:, where] = _on_a_device(
                moments, [values[i] for i in where], [grads[i] for i in where], scale
            )
    return reduce_over_shards(moments, table, shardings) if shardings else table


def _on_a_device(
    moments: Sequence[Moment],
    values: Sequence[Tensor],
    grads: Sequence[Tensor],
    scale: float | Tensor,
) -> Tensor:
    """The moments of one device's tensors, brought to the host at once."""
    device = grads[0].device
    wide = torch.float32 if device.type in NO_FLOAT64 else torch.float64
    kernels = list(dict.fromkeys(moment.measured_as for moment in moments))
    columns = [kernel(values, grads).to(wide) for kernel in kernels]
    if len(columns) == 1 and isinstance(scale, float) and scale == 1.0:
        numbers = columns[0].to("cpu", torch.float64)
        return torch.stack([m.refine(values, grads, numbers) for m in moments])
    if isinstance(scale, Tensor):
        columns.append(scale.reshape(1).to(device, wide, non_blocking=True))
    numbers = torch.cat([c.reshape(-1) for c in columns]).to("cpu", torch.float64)
    factor = numbers[-1] if isinstance(scale, Tensor) else scale
    parts = numbers.split([column.numel() for column in columns])
    found = {
        kernel: part.view(column.shape)
        for kernel, part, column in zip(kernels, parts, columns, strict=False)
    }
    rows = [m.refine(values, grads, found[m.measured_as], factor) for m in moments]
    if isinstance(factor, Tensor) or factor != 1.0:
        degrees = [m.degree for m in moments]
        rows = [r / factor**d if d else r for r, d in zip(rows, degrees, strict=True)]
    return torch.stack(rows)
