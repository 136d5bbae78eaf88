"""One reading of the taps: the table of a snapshot, in the order of the forward."""

from __future__ import annotations

import torch
from torch import Tensor

from ._activations import ActivationTaps
from ._dead_units import DeadUnitLedger
from ._reading import Table


def read_activations(
    taps: ActivationTaps,
    scale: float | Tensor = 1.0,
    ledger: DeadUnitLedger | None = None,
    step: int = 0,
) -> Table | None:
    """What was measured since the last reading.

    Args:
        taps: The taps.
        scale: What the gradients were multiplied by; it is divided out.
        ledger: Told which units were active.
        step: The step that this was.

    Returns:
        One row a module that got a gradient, in the order of the forward; None if none
        got one.
    """
    sums = taps.gather()
    called = sums.calls.tolist()
    there = [tap for tap in taps.order if called[tap.index] and not tap.failed]
    if not there:
        return None
    with_units = [(tap, tap.units) for tap in there if tap.units is not None]
    if with_units:
        sums.add_units(
            [tap.index for tap, _ in with_units], [units for _, units in with_units]
        )
        if ledger is not None:
            for tap, (output, grad) in with_units:
                ledger.update(tap.row.name, output & grad, step)
    where = torch.tensor([tap.index for tap in there])
    values, available = sums.table(where, float(scale))
    return Table(tuple(tap.row for tap in there), values, available)
