"""What a step did: the update against the parameters and against the gradient.

At a step that is read, a sample of the parameters is kept before it and compared with
the same sample after it; so any optimizer is measured, fused or not, by what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch

from ..quantities import Feed, Quantity
from ._layers import Layers
from ._reading import Table, assemble, moments_of
from ._samples import Rows, Samples

Emit = Callable[[Sequence[Quantity], Table], object]


class Sampled(NamedTuple):
    """The sampled gradients of a step.

    Attributes:
        rows: Their entries.
        there: Which parameters have one.
    """

    rows: Rows
    there: tuple[int, ...]


@dataclass
class StepReading:
    """One optimizer step, from before it to after it.

    Attributes:
        layers: The parameters, and the rows they are in.
        samples: Draws samples of them.
        before: The parameters before the step.
        gradients: The gradients it was taken with; None until they are final.
    """

    layers: Layers
    samples: Samples
    before: Rows | None
    gradients: Sampled | None = None


class Updates:
    """Reads the quantities fed with updates and with two gradients.

    Args:
        quantities: Those of the feeds `update`, `step` and `previous`.
    """

    def __init__(self, quantities: Sequence[Quantity]) -> None:
        self._by_feed: dict[Feed, list[Quantity]] = {}
        for quantity in quantities:
            self._by_feed.setdefault(quantity.feed, []).append(quantity)
        self._samples: WeakKeyDictionary[Layers, Samples] = WeakKeyDictionary()
        self._previous: WeakKeyDictionary[Layers, Sampled] = WeakKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._by_feed)

    @torch.no_grad()
    def begin(self, layers: Layers) -> StepReading:
        """Sample the parameters before a step.

        Args:
            layers: The parameters.
        """
        samples = self._samples.get(layers)
        if samples is None:
            samples = self._samples[layers] = Samples(layers.parameters)
        moving = {"update", "step"} & self._by_feed.keys()
        before = samples.of_parameters(layers.parameters) if moving else None
        return StepReading(layers, samples, before)

    @torch.no_grad()
    def read_gradients(self, reading: StepReading) -> None:
        """Sample the gradients once they are final.

        Args:
            reading: What `begin` returned.
        """
        if not {"previous", "step"} & self._by_feed.keys():
            return
        grads = [p.grad for p in reading.layers.parameters]
        there = tuple(i for i, grad in enumerate(grads) if grad is not None)
        if there:
            reading.gradients = Sampled(reading.samples.of(grads), there)

    @torch.no_grad()
    def end(self, reading: StepReading, emit: Emit, total: str) -> None:
        """Sample the parameters after the step, and measure what it did.

        Args:
            reading: What `begin` returned.
            emit: Called with quantities and their table.
            total: The name of the total row.
        """
        layers, samples, now = reading.layers, reading.samples, reading.gradients
        feeds: dict[Feed, tuple[Rows, Rows, Sequence[int]]] = {}
        if reading.before is not None:
            after = samples.of_parameters(layers.parameters)
            update = [a.sub_(b) for a, b in zip(after, reading.before, strict=True)]
            moved = [i for i, p in enumerate(layers.parameters) if p.grad is not None]
            feeds["update"] = reading.before, update, moved
            if now is not None:
                feeds["step"] = now.rows, update, now.there
        if now is not None:
            last = self._previous.get(layers)
            if last is not None:
                both = sorted({*last.there} & {*now.there})
                feeds["previous"] = last.rows, now.rows, both
            self._previous[layers] = now
        read = [
            (self._by_feed[feed], *rows)
            for feed, rows in feeds.items()
            if feed in self._by_feed
        ]
        numbers = samples.measure([(moments_of(tuple(q)), v, g) for q, v, g, _ in read])
        tables: list[Table] = []
        for (quantities, _, _, there), found in zip(read, numbers, strict=True):
            rows = found[:, list(there)]
            moments = dict(zip(moments_of(tuple(quantities)), rows, strict=True))
            tables.append(assemble(layers, there, moments, quantities, total))
        if tables:
            values = torch.cat([table.values for table in tables], dim=1)
            available = torch.cat([table.available for table in tables], dim=1)
            quantities = [q for some, *_ in read for q in some]
            emit(quantities, Table(tables[0].rows, values, available))
