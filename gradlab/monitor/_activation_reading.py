"""One reading of the taps: the table of a snapshot, in the order of the forward."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._snapshot import Row
from ..quantities import Moment
from ._activations import ActivationTaps
from ._dead_units import DeadUnitLedger
from ._measure import NO_FLOAT64
from ._reading import Table

Key = tuple[str, Moment]


def read_activations(
    taps: ActivationTaps,
    scale: float | Tensor = 1.0,
    ledger: DeadUnitLedger | None = None,
    step: int = 0,
) -> Table | None:
    """What was measured since the last reading, with one transfer a device.

    Args:
        taps: The taps.
        scale: What the gradients were multiplied by; it is divided out.
        ledger: Told which units were active.
        step: The step that this was.

    Returns:
        One row a module that got a gradient, in the order of the forward; None if none
        got one.
    """
    there = {name: calls for name, calls in taps.calls.items() if calls.count}
    if not there:
        return None
    numbers: dict[Key, Tensor] = {
        (name, moment): number
        for name, calls in there.items()
        for moment, number in calls.numbers.items()
    }
    with_units = {n: c.units for n, c in there.items() if c.units is not None}
    numbers.update(_of_units(taps, with_units))
    if ledger is not None:
        for name, (output, grad) in with_units.items():
            ledger.update(name, output & grad, step)
    found = _transfer(numbers, scale)
    count = torch.tensor([c.count for c in there.values()], dtype=torch.float64)
    needed = [taps.moments_of(name) for name in there]
    columns: list[Tensor] = []
    for k, quantity in enumerate(taps.quantities):
        lists = [
            [found.get((name, m), math.nan) for m in moments[k] or quantity.moments]
            if moments[k] is not None
            else [math.nan] * len(quantity.moments)
            for name, moments in zip(there, needed, strict=True)
        ]
        columns.append(quantity(count, *torch.tensor(lists, dtype=torch.float64).T))
    available = [
        [
            moments is not None and all((name, m) in found for m in moments)
            for moments in row
        ]
        for name, row in zip(there, needed, strict=True)
    ]
    table = Table(
        tuple(Row(name, "layer") for name in there),
        torch.stack(columns, 1),
        torch.tensor(available),
    )
    table.values[~table.available] = math.nan
    return table


def _of_units(
    taps: ActivationTaps, units: dict[str, tuple[Tensor, Tensor]]
) -> dict[Key, Tensor]:
    """The moments of units, of all modules of a device at once."""
    numbers: dict[Key, Tensor] = {}
    for device in dict.fromkeys(output.device for output, _ in units.values()):
        names = [n for n, (output, _) in units.items() if output.device == device]
        outputs = [units[name][0] for name in names]
        grads = [units[name][1] for name in names]
        for moment in taps.calls[names[0]].of_units:
            found = moment(outputs, grads).unbind()
            numbers.update(((n, moment), f) for n, f in zip(names, found, strict=True))
    return numbers


def _transfer(numbers: dict[Key, Tensor], scale: float | Tensor) -> dict[Key, float]:
    """All numbers on the host, the scale divided out."""
    found: dict[Key, float] = {}
    groups: dict[tuple[torch.device, torch.dtype], list[Key]] = {}
    for key, number in numbers.items():
        device = number.device
        wide = torch.float32 if device.type in NO_FLOAT64 else torch.float64
        # On the CPU converting costs more than another list.
        dtype = number.dtype if device.type == "cpu" else wide
        groups.setdefault((device, dtype), []).append(key)
    for (device, dtype), keys in groups.items():
        column = [numbers[key].to(dtype) for key in keys]
        if isinstance(scale, Tensor):
            column.append(scale.reshape(()).to(device, dtype, non_blocking=True))
        host = torch.stack(column).tolist()
        factor = host.pop() if isinstance(scale, Tensor) else scale
        for key, number in zip(keys, host, strict=True):
            found[key] = number / factor ** key[1].degree
    return found
