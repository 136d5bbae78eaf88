"""Which units were active in a step: told by a sample where it has no zero."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..quantities import active_units
from ._calls import Call


def add_units(calls: Sequence[Call]) -> None:
    """Book the activity of units with the modules that were called.

    Where a sample has every unit and no zero, each was active. Where it has a zero, all
    of the module's outputs are looked at from the next reading on; in this one nothing
    is said of its units. An output that is its own sample has told all.

    Args:
        calls: Calls of modules, in the order in which their gradients came.
    """
    sampled: list[tuple[Call, Tensor, Tensor]] = []
    for call in calls:
        axis, value, grad = call.of.axis, call.value, call.grad
        if call.units is not None:
            call.tap.add_units(*call.units)
        elif axis is not None and value is not None and grad is not None:
            if value.numel() == call.count:
                call.tap.add_units(active_units(value, axis), active_units(grad, axis))
            else:
                sampled.append((call, value, grad))
    zeros = _zeros([value for _, value, _ in sampled])
    zeros_of_grads = _zeros([grad for _, _, grad in sampled])
    for i, (call, _, grad) in enumerate(sampled):
        if zeros[i] or zeros_of_grads[i] or not call.of.covered:
            call.tap.closely = True
            call.tap.forget_units()
        else:
            every = _every(call.of.width, grad.device)
            call.tap.add_units(every, every)


def _zeros(samples: Sequence[Tensor]) -> list[int]:
    """How many zeros each sample has, with one transfer a device."""
    found = [0] * len(samples)
    for device in dict.fromkeys(sample.device for sample in samples):
        where = [i for i, sample in enumerate(samples) if sample.device == device]
        counts = torch.stack([torch.count_nonzero(samples[i]) for i in where])
        for i, count in zip(where, counts.tolist(), strict=True):
            found[i] = samples[i].numel() - count
    return found


@lru_cache(maxsize=256)
def _every(units: int, device: torch.device) -> Tensor:
    return torch.ones(units, dtype=torch.bool, device=device)
