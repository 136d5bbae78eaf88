"""Measures many gradients with few kernels and one transfer a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..quantities import Quantity

Pair = tuple[Tensor, Tensor]
NO_FLOAT64 = {"mps"}


def measure(
    quantities: Sequence[Quantity], pairs: Sequence[Pair], scale: float | Tensor = 1.0
) -> list[list[float]]:
    """The number of each quantity for each pair, on the host.

    Args:
        quantities: What to measure.
        pairs: Values and their gradients, on any devices.
        scale: What the gradients were multiplied by; it is divided out.

    Returns:
        One list a quantity, in the order of the pairs.
    """
    table = [[0.0] * len(pairs) for _ in quantities]
    for device in dict.fromkeys(grad.device for _, grad in pairs):
        where = [i for i, (_, grad) in enumerate(pairs) if grad.device == device]
        here = [pairs[i] for i in where]
        factor, columns = _transfer(quantities, here, scale)
        for quantity, row, column in zip(quantities, table, columns, strict=True):
            _refine(quantity, here, column)
            for i, number in zip(where, column, strict=True):
                row[i] = number / factor**quantity.degree
    return table


def _transfer(
    quantities: Sequence[Quantity], pairs: Sequence[Pair], scale: float | Tensor
) -> tuple[float, list[list[float]]]:
    """The scale and the columns of one device, brought to the host at once."""
    values, grads = [value for value, _ in pairs], [grad for _, grad in pairs]
    device = grads[0].device
    wide = torch.float32 if device.type in NO_FLOAT64 else torch.float64
    columns = [quantity(values, grads).to(wide) for quantity in quantities]
    if isinstance(scale, Tensor):
        columns.append(scale.reshape(1).to(device, wide, non_blocking=True))
    numbers = torch.cat(columns).tolist()
    factor = numbers.pop() if isinstance(scale, Tensor) else scale
    n = len(pairs)
    return factor, [numbers[i * n : (i + 1) * n] for i in range(len(quantities))]


def _refine(quantity: Quantity, pairs: Sequence[Pair], column: list[float]) -> None:
    """Measure again, in float64, what float32 cannot hold."""
    low, high = quantity.trusted
    again = [i for i, number in enumerate(column) if number < low or number > high]
    if not again or pairs[0][1].device.type in NO_FLOAT64:
        return
    values, grads = [pairs[i][0] for i in again], [pairs[i][1] for i in again]
    numbers = quantity(values, grads, dtype=torch.float64).tolist()
    for i, number in zip(again, numbers, strict=True):
        column[i] = number
