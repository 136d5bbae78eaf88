"""What the calls of the watched modules add up to in a step, moment by moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..quantities import Moment, Norm, Quantity
from ._calls import Call
from ._measure import Pair, measure


class Kind:
    """What is measured of modules of one kind.

    Args:
        needed: What each quantity needs of them; None where it has no meaning.

    Attributes:
        of_output: The moments of an output and its gradient.
        of_input: The moments of the gradient that goes on to the module's input.
        of_units: The moments of the activity of units.
        of_value: Whether one is of the output.
        of_grad: Whether one is of its gradient.
    """

    def __init__(self, needed: Sequence[tuple[Moment, ...] | None]) -> None:
        moments = list(dict.fromkeys(m for some in needed for m in some or ()))
        self.of_output = [m for m in moments if m.of in ("value", "gradient")]
        self.of_input = [m for m in moments if m.of == "input"]
        self.of_units = [m for m in moments if m.of == "units"]
        self.of_value = any(m.of in ("value", "units") for m in moments)
        self.of_grad = any(m.of in ("gradient", "units") for m in moments)


class ActivationSums:
    """The moments of each module over the calls of a step: a few vectors.

    Args:
        modules: The watched modules.
        quantities: What to measure of them.

    Attributes:
        quantities: What is measured.
        kinds: The kind of each module.
        calls: How many calls each module had.
        count: How many entries their outputs have.
    """

    def __init__(
        self, modules: Sequence[nn.Module], quantities: Sequence[Quantity]
    ) -> None:
        self.quantities = tuple(quantities)
        known: dict[tuple[tuple[Moment, ...] | None, ...], Kind] = {}
        self.kinds: list[Kind] = []
        needed = [tuple(q.moments_of(m) for q in quantities) for m in modules]
        for each in needed:
            self.kinds.append(known.setdefault(each, Kind(each)))
        self._n = len(modules)
        self._slots = [
            _slots([each[k] for each in needed], len(quantity.moments))
            for k, quantity in enumerate(quantities)
        ]
        meaning = [[moments is not None for moments in each] for each in needed]
        self._meaning = torch.tensor(meaning)
        self._every = torch.arange(self._n)
        self.clear()

    def clear(self) -> None:
        """Forget all calls."""
        self.calls = torch.zeros(self._n, dtype=torch.float64)
        self.count = torch.zeros(self._n, dtype=torch.float64)
        self._found: dict[Moment, Tensor] = {}
        self._came_back = torch.zeros(self._n, dtype=torch.float64)
        self._complex = torch.zeros(self._n, dtype=torch.bool)
        self._with_units = torch.zeros(self._n, dtype=torch.bool)

    def add(self, calls: Iterable[Call]) -> None:
        """Measure some calls and add them; with one that cannot be, none is added.

        Args:
            calls: The calls.
        """
        alike: dict[tuple[Kind, bool], list[Call]] = {}
        for call in calls:
            alike.setdefault((call.tap.kind, call.of.complex), []).append(call)
        measured = [_Measured(kind, some) for (kind, _), some in alike.items()]
        for one in measured:
            for moment, where, numbers in one.parts:
                self._put(moment, where, numbers)
            self.calls.index_add_(0, one.where, torch.ones_like(one.count))
            self.count.index_add_(0, one.where, one.count)
            if one.complex:
                self._complex[one.where] = True
            if one.back is not None:
                self._came_back.index_add_(
                    0, one.back, torch.ones(len(one.back)).double()
                )

    def add_units(self, modules: Sequence[int], units: Sequence[Pair]) -> None:
        """Measure the activity of units in the whole step.

        Args:
            modules: The places of some modules.
            units: Which units had a nonzero output, and which a nonzero gradient.
        """
        alike: dict[Kind, list[int]] = {}
        for i, module in enumerate(modules):
            alike.setdefault(self.kinds[module], []).append(i)
        for kind, some in alike.items():
            numbers = measure(kind.of_units, [units[i] for i in some])
            where = torch.tensor([modules[i] for i in some])
            for moment, row in zip(kind.of_units, numbers, strict=True):
                self._put(moment, where, row)
            self._with_units[where] = True

    def table(self, where: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """The quantities of some modules.

        Args:
            where: Their places; each was called.
            scale: What the gradients were multiplied by; it is divided out.

        Returns:
            Values and whether they are available, `[modules, quantities]`.
        """
        available = self._meaning[where]
        columns: list[Tensor] = []
        there = {"units": self._with_units, "input": self._came_back == self.calls}
        for k, (quantity, slots) in enumerate(
            zip(self.quantities, self._slots, strict=True)
        ):
            columns.append(quantity(self.count, *(self._of(s, scale) for s in slots)))
            moments = [moment for slot in slots for moment, _ in slot]
            for of in {moment.of for moment in moments} & there.keys():
                available[:, k] &= there[of][where]
            if not all(_of_complex(moment) for moment in moments):
                available[:, k] &= ~self._complex[where]
        values = torch.stack(columns, 1)[where]
        return values.masked_fill_(~available, torch.nan), available

    def _of(self, slot: Sequence[tuple[Moment, Tensor]], scale: float) -> Tensor:
        """One argument of a quantity, of each module the moment that is meant."""
        number = torch.full((self._n,), torch.nan, dtype=torch.float64)
        for moment, modules in slot:
            found = self._found.get(moment)
            if found is None:
                continue
            if moment.degree and scale != 1.0:
                found = found / scale**moment.degree
            if len(slot) == 1:
                return found
            number[modules] = found[modules]
        return number

    def _put(self, moment: Moment, where: Tensor, numbers: Tensor) -> None:
        before = self._found.get(moment)
        if before is not None:
            numbers = torch.cat([before, numbers])
            where = torch.cat([self._every, where])
        self._found[moment] = moment.combine(numbers, where, self._n)


class _Measured:
    """The moments of calls of one kind, estimated from samples.

    Attributes:
        where: The places of the modules.
        count: How many entries the outputs have.
        complex: Whether the outputs are.
        back: The places of those to whose input a gradient came; None if not looked at.
        parts: Moments, places of the modules, and their numbers.
    """

    def __init__(self, kind: Kind, calls: Sequence[Call]) -> None:
        self.where = torch.tensor([call.tap.index for call in calls])
        counts = [call.count for call in calls]
        self.count = torch.tensor(counts, dtype=torch.float64)
        self.parts: list[tuple[Moment, Tensor, Tensor]] = []
        self.complex = calls[0].of.complex
        of_output = [m for m in kind.of_output if not self.complex or _of_complex(m)]
        if of_output:
            pairs = [_pair(c.value, c.grad) for c in calls]
            self._measure(of_output, pairs, counts, self.where)
        self.back: Tensor | None = None
        if kind.of_input:
            there = [i for i, call in enumerate(calls) if call.into is not None]
            self.back = self.where[there]
            if there:
                pairs = [_pair(calls[i].into, None) for i in there]
                counts = [counts[i] for i in there]
                self._measure(kind.of_input, pairs, counts, self.back)

    def _measure(
        self,
        moments: Sequence[Moment],
        pairs: Sequence[Pair],
        counts: list[int],
        where: Tensor,
    ) -> None:
        numbers = measure(moments, pairs)
        sizes = [grad.numel() for _, grad in pairs]
        if sizes != counts:
            whole = torch.tensor(counts, dtype=torch.float64) / torch.tensor(sizes)
            powers = {"sum": whole, "norm": whole.sqrt()}
            for moment, row in zip(moments, numbers, strict=True):
                # A maximum is that of the sample.
                if moment.reduce in powers:
                    row.mul_(powers[moment.reduce])
        self.parts += [(m, where, row) for m, row in zip(moments, numbers, strict=True)]


def _of_complex(moment: Moment) -> bool:
    """Whether a moment has a meaning for complex outputs."""
    return isinstance(moment, Norm) or moment.of == "units"


def _slots(
    needed: Sequence[tuple[Moment, ...] | None], width: int
) -> list[list[tuple[Moment, Tensor]]]:
    """For each argument of a quantity the moments that it is, and of which modules."""
    found: list[dict[Moment, list[int]]] = [{} for _ in range(width)]
    for i, moments in enumerate(needed):
        for slot, moment in zip(found, moments or (), strict=False):
            slot.setdefault(moment, []).append(i)
    return [[(m, torch.tensor(some)) for m, some in slot.items()] for slot in found]


def _pair(value: Tensor | None, grad: Tensor | None) -> Pair:
    """A pair for moments that look at what is there only."""
    one = grad if value is None else value
    if one is None:
        raise ValueError("a call keeps a sample of its output or of the gradient of it")
    return (one if value is None else value), (one if grad is None else grad)
