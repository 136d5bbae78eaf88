"""What the calls of one module in one step add up to, on their device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..quantities import Moment, Norm
from ._measure import NO_FLOAT64

Numbers = dict[Moment, Tensor]


class Calls:
    """Sums over the calls of one module in one step: a few numbers, no activation.

    Args:
        moments: What to measure.

    Attributes:
        count: How many entries the outputs had.
        numbers: Each moment so far, 0-d.
        units: Which units had a nonzero output, and which a nonzero gradient.
    """

    def __init__(self, moments: Sequence[Moment]) -> None:
        self.moments = moments
        self.of_values = [m for m in moments if m.of == "value"]
        self.of_grads = [m for m in moments if m.of == "gradient"]
        self.of_units = [m for m in moments if m.of == "units"]
        self.clear()

    def clear(self) -> None:
        """Forget all calls."""
        self.count = 0
        self.numbers: Numbers = {}
        self.units: tuple[Tensor, Tensor] | None = None
        self._unlike = False

    def add(
        self, count: int, numbers: Numbers, units: tuple[Tensor, Tensor] | None
    ) -> None:
        """Add one call.

        Args:
            count: How many entries its output has.
            numbers: Its moments.
            units: The active units; None where there are no units.
        """
        self.count += count
        for moment, number in numbers.items():
            before = self.numbers.get(moment)
            self.numbers[moment] = (
                number if before is None else _combine(moment, before, number)
            )
        if units is None or self._unlike:
            return
        if self.units is None:
            self.units = units
        elif self.units[0].shape == units[0].shape:
            self.units = (
                self.units[0] | units[0],
                self.units[1] | units[1],
            )
        else:
            # Calls with other numbers of units have no units in common.
            self.units, self._unlike = None, True


def measured(moments: Sequence[Moment], tensor: Tensor) -> Numbers:
    """The moments of one tensor, 0-d on its device.

    Args:
        moments: What to measure.
        tensor: An output, or its gradient, that needs no gradient itself. It may not be
            there when the step is read, so nothing can be measured a second time. Of
            a complex one only norms have a meaning.
    """
    if tensor.is_complex():
        moments = [moment for moment in moments if type(moment) is Norm]
    return {
        moment: _norm(tensor) if type(moment) is Norm else moment([tensor], [tensor])[0]
        for moment in moments
    }


def _norm(tensor: Tensor) -> Tensor:
    """As `Norm` and its refinement: of one tensor that is dense, with less to do."""
    device, dtype = tensor.device.type, tensor.dtype
    if device == "cpu":
        number = torch.linalg.vector_norm(
            tensor, dtype=None if dtype in _PRECISE else torch.float32
        )
        # A number is on the host already; float64 at once would cost three times.
        if 1e-15 <= float(number) <= 1e18:
            return number
    wide = torch.float32 if device in NO_FLOAT64 else torch.float64
    return torch.linalg.vector_norm(tensor, dtype=torch.promote_types(dtype, wide))


_PRECISE = {torch.float32, torch.float64, torch.complex64, torch.complex128}


def _combine(moment: Moment, one: Tensor, other: Tensor) -> Tensor:
    if one.device.type not in NO_FLOAT64:
        one, other = one.double(), other.double()
    if moment.reduce == "norm":
        return torch.hypot(one, other)
    return one + other if moment.reduce == "sum" else torch.maximum(one, other)
