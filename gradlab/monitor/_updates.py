"""What a step did: the update against the parameters and against the gradient.

At a step that is read, a sample of the parameters is kept before it and compared with
the same sample after it; so any optimizer is measured, fused or not, by what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..quantities import Feed, Quantity
from ._layers import Layers
from ._reading import Table, tabulate
from ._samples import Cut, Samples

Emit = Callable[[Sequence[Quantity], Table], object]


@dataclass
class StepReading:
    """One optimizer step, from before it to after it.

    Attributes:
        layers: The parameters, and the rows they are in.
        before: Samples of them before the step.
        cut: How they are cut.
        gradients: Samples of the gradients it was taken with, None where there is none.
    """

    layers: Layers
    before: list[Tensor]
    cut: list[Cut]
    gradients: list[Tensor | None] = field(default_factory=list)


class Updates:
    """Reads the quantities fed with updates and with two gradients.

    Args:
        quantities: Those of the feeds `update`, `step` and `previous`.
    """

    def __init__(self, quantities: Sequence[Quantity]) -> None:
        self._by_feed: dict[Feed, list[Quantity]] = {}
        for quantity in quantities:
            self._by_feed.setdefault(quantity.feed, []).append(quantity)
        self._samples = Samples()
        self._previous: dict[int, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._by_feed)

    @torch.no_grad()
    def begin(self, layers: Layers) -> StepReading:
        """Sample the parameters before a step.

        Args:
            layers: The parameters.
        """
        moving = {"update", "step"} & self._by_feed.keys()
        before, cut = self._samples.of(layers.parameters) if moving else ([], [])
        return StepReading(layers, before, cut)

    @torch.no_grad()
    def read_gradients(self, reading: StepReading, emit: Emit, total: str) -> None:
        """Sample the gradients once they are final, and compare with the last ones.

        Args:
            reading: What `begin` returned.
            emit: Called with quantities and their table.
            total: The name of the total row.
        """
        if not {"previous", "step"} & self._by_feed.keys():
            return
        parameters = reading.layers.parameters
        there = [(i, p.grad) for i, p in enumerate(parameters) if p.grad is not None]
        samples, cuts = self._samples.of([grad for _, grad in there])
        reading.gradients = [None] * len(parameters)
        cut: list[Cut] = [None] * len(parameters)
        for (i, _), sample, shards in zip(there, samples, cuts, strict=True):
            reading.gradients[i], cut[i] = sample, shards
        if quantities := self._by_feed.get("previous"):
            last = [self._previous.get(id(p)) for p in parameters]
            pairs = [
                None if a is None or b is None or a.shape != b.shape else (a, b)
                for a, b in zip(last, reading.gradients, strict=True)
            ]
            if any(pairs):
                emit(
                    quantities,
                    tabulate(reading.layers, pairs, quantities, 1.0, total, cut),
                )
            for p, sample in zip(parameters, reading.gradients, strict=True):
                if sample is not None:
                    self._previous[id(p)] = sample

    @torch.no_grad()
    def end(self, reading: StepReading, emit: Emit, total: str) -> None:
        """Sample the parameters after the step, and measure what it did.

        Args:
            reading: What `begin` returned.
            emit: Called with quantities and their table.
            total: The name of the total row.
        """
        if not reading.before:
            return
        after, _ = self._samples.of(reading.layers.parameters)
        updates = [new - old for new, old in zip(after, reading.before, strict=True)]
        feeds: dict[Feed, Sequence[Tensor | None]] = {
            "update": reading.before,
            "step": reading.gradients or [None] * len(updates),
        }
        for feed, values in feeds.items():
            quantities = self._by_feed.get(feed)
            if not quantities:
                continue
            pairs = [
                None if value is None or p.grad is None else (value, update)
                for p, value, update in zip(
                    reading.layers.parameters, values, updates, strict=True
                )
            ]
            table = tabulate(reading.layers, pairs, quantities, 1.0, total, reading.cut)
            emit(quantities, table)
