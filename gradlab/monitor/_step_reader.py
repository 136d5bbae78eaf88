"""Reads one optimizer step, from its beginning to its end, tier by tier."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from .._snapshot import Row, Snapshot, Stage
from ..quantities import Quantity
from ._action import Run
from ._activation_watch import ActivationWatch
from ._agreement import must_agree, one_of_many
from ._clipping import NORM, Early, clipped, versions, without
from ._layers import Layers, Outline
from ._microbatches import Microbatches
from ._reading import Table, gradients, tabulate
from ._sinks import Sinks
from ._taps import OptimizerTap, Read
from ._tiers import Tiers
from ._updates import StepReading, Updates

OF_UPDATES = ("update", "step", "previous")
OF_MICROBATCHES = ("microbatch", "rank")

Total = Callable[[Optimizer], str]
"""The name of the total row of an optimizer's snapshots."""


@dataclass
class _Begun:
    """A step that has begun: what is due, and whether its gradient was read."""

    step: int
    due: frozenset[str]
    layers: Layers | None = None
    updates: StepReading | None = None
    read: bool = False


class StepReader:
    """What a monitor does at each step of a watched optimizer.

    Args:
        outline: The layers of the model.
        quantities: What to measure.
        tiers: What is due at a step.
        sinks: What is called with each snapshot.
        run: The run that actions are about.
        clock: Tells the step; None counts.
        scaler: The GradScaler of the run.

    Attributes:
        taps: The watched optimizers.
        activations: What watches the outputs of modules, if something does.
        step: The step of the next snapshot.
        failures: How often reading failed.
    """

    def __init__(
        self,
        outline: Outline,
        quantities: Sequence[Quantity],
        tiers: Tiers,
        sinks: Sinks,
        run: Run,
        clock: Callable[[], int] | None,
        scaler: GradScaler | None = None,
    ) -> None:
        self.taps: dict[int, OptimizerTap] = {}
        self.activations: ActivationWatch | None = None
        self.step = 0
        self.failures = 0
        self.of_gradients = [q for q in quantities if q.feed == "gradient"]
        self._outline = outline
        self._of_clipping = [q for q in quantities if q.feed == "clipping"]
        names = [quantity.name for quantity in self.of_gradients]
        # Read for the sake of clipping only.
        self._hidden = [NORM] if self._of_clipping and NORM.name not in names else []
        self._updates = Updates([q for q in quantities if q.feed in OF_UPDATES])
        self._microbatches = Microbatches(
            [q for q in quantities if q.feed in OF_MICROBATCHES],
            self._gradients_may_be_read,
            self._safely,
            scaler,
        )
        self._tiers = tiers
        self._sinks = sinks
        self._run = run
        self._clock = clock
        self._begun: dict[int, _Begun] = {}
        self._names = [quantity.name for quantity in quantities]
        self._agreed = self._blind = False
        self._early: dict[int, Early] = {}

    def add(self, optimizer: Optimizer) -> None:
        """Read the steps of one more optimizer.

        Args:
            optimizer: The optimizer.
        """
        if self.activations is not None:
            self.activations.restore()
        begin, end = map(self._tiers.counted, (self._on_step, self._done))
        self.taps[id(optimizer)] = OptimizerTap(optimizer, begin, end)
        # Of the others too, if their hooks were resting.
        for tap in self.taps.values():
            self._microbatches.watch(self._outline.of(tap.optimizer))

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        for tap in self.taps.values():
            tap.remove()
        self.taps.clear()
        self._begun.clear()
        for optimizer in [*self._early]:
            self._take_early(optimizer)
        self._microbatches.remove()
        if self.activations is not None:
            self.activations.remove()

    def now(self) -> int:
        """The step that is coming."""
        if self._clock is not None:
            told = self._safely(self._told, self._clock)
            self.step = self.step if told is None else told
        return self.step

    @staticmethod
    def _told(clock: Callable[[], int]) -> int:
        step = clock()
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"a clock tells a step, counted from 0, got {step!r}")
        return step

    def emit(
        self, step: int, stage: Stage, quantities: Sequence[Quantity], table: Table
    ) -> Snapshot:
        """Hand a table to the sinks.

        Args:
            step: The step it belongs to.
            stage: Where the gradients were read.
            quantities: Its columns.
            table: The table.

        Returns:
            The snapshot.
        """
        snapshot = _snapshot(step, stage, quantities, table)
        self._sinks.take(snapshot)
        return snapshot

    def read_gradients(
        self,
        step: int,
        stage: Stage,
        scale: float | Tensor,
        optimizer: Optimizer | None,
        total: str,
    ) -> Snapshot:
        """Read the gradients as they are.

        Args:
            step: The step they belong to.
            stage: Where they are on their way to the update.
            scale: What the loss was multiplied by.
            optimizer: Whose parameters to read; None is all.
            total: The name of the total row.
        """
        chosen = self.of_gradients
        snapshot = self._measured(step, stage, scale, optimizer, total, chosen)
        self._sinks.take(snapshot)
        return snapshot

    @torch.no_grad()
    def _measured(
        self,
        step: int,
        stage: Stage,
        scale: float | Tensor,
        optimizer: Optimizer | None,
        total: str,
        quantities: Sequence[Quantity],
    ) -> Snapshot:
        layers = self._layers(optimizer)
        table = tabulate(layers, gradients(layers), quantities, scale, total)
        return _snapshot(step, stage, quantities, table)

    def _layers(self, optimizer: Optimizer | None) -> Layers:
        """The layers of an optimizer, looked at once a step."""
        begun = None if optimizer is None else self._begun.get(id(optimizer))
        if begun is not None and begun.layers is not None:
            return begun.layers
        layers = self._outline.of(optimizer)
        if begun is not None:
            begun.layers = layers
        return layers

    def may_be_read(self) -> bool:
        """Whether the activations of the forward that begins may be read."""
        return not self.taps or self._tiers.pending("activation", self.taps, self.now())

    def _gradients_may_be_read(self) -> bool:
        return self._tiers.pending("gradient", self.taps, self.now())

    def before_clipping(self, optimizer: Optimizer, scale: float | Tensor) -> None:
        """Read the gradients before clipping, if the coming step is read.

        Args:
            optimizer: Whose gradients are clipped.
            scale: What the gradients are still multiplied by.
        """
        begun = self._begun.get(id(optimizer))
        if begun is None or not self.taps[id(optimizer)].stepping:
            step = self.now()
            due = self._tiers.pending("gradient", [id(optimizer)], step)
        else:
            # Within a closure, which may run again after the reading.
            step, due = begun.step, "gradient" in begun.due and not begun.read
        if due and self._may_read(optimizer, step):
            with self._tiers.timed("gradient"):
                self._safely(self._before_clipping, optimizer, step, scale)

    def _before_clipping(
        self, optimizer: Optimizer, step: int, scale: float | Tensor
    ) -> None:
        quantities = [*self.of_gradients, *self._hidden]
        if not quantities:
            return
        early = self._early.get(id(optimizer))
        if early is not None and early.snapshot.step != step:
            # Of a step that GradScaler skipped.
            self._take_early(id(optimizer))
        total = self._total(optimizer)
        snapshot = self._measured(step, "unscaled", scale, optimizer, total, quantities)
        found = versions(self._layers(optimizer).parameters)
        self._early[id(optimizer)] = Early(snapshot, found)

    def _take_early(self, optimizer: int) -> Early | None:
        """Hand on what was read before clipping; of several readings the last."""
        if (early := self._early.pop(optimizer, None)) is not None:
            self._take(early.snapshot)
        return early

    def _take(self, snapshot: Snapshot) -> None:
        shown = without(snapshot, [quantity.name for quantity in self._hidden])
        if shown is not None:
            self._sinks.take(shown)

    def _on_step(self, optimizer: Optimizer) -> Read | None:
        step = self.now()
        self.step += 1
        due = self._tiers.due(id(optimizer), step)
        if due and not self._may_read(optimizer, step):
            due = frozenset()
        if self.activations is not None:
            self.activations.on_step("activation" in due)
        begun = self._begun[id(optimizer)] = _Begun(step, due)
        if not due:
            return None
        if "update" in due:
            with self._tiers.timed("update"):
                begun.updates = self._safely(self._begin_updates, optimizer)
        read = partial(self._safely, self._read, optimizer)
        # A closure runs it outside of this hook.
        return self._tiers.counted(read)

    def _begin_updates(self, optimizer: Optimizer) -> StepReading:
        return self._updates.begin(self._layers(optimizer))

    def _may_read(self, optimizer: Optimizer, step: int) -> bool:
        """Whether all ranks read the same; found out at the first reading."""
        if not self._agreed:
            self._agreed = True
            self._blind = not self._safely(self._agree, optimizer, step)
        return not self._blind

    def _agree(self, optimizer: Optimizer, step: int) -> bool:
        mesh = self._layers(optimizer).mesh
        if mesh is not None:
            must_agree(mesh, step, self._names, str(self._tiers))
        return True

    def _read(self, optimizer: Optimizer) -> None:
        begun = self._begun.get(id(optimizer))
        if begun is None:
            # Detached within the closure.
            return
        begun.read = True
        step, due = begun.step, begun.due
        # GradScaler leaves it on a fused optimizer, which unscales inside its kernel.
        scale: Tensor | None = getattr(optimizer, "grad_scale", None)
        factor = 1.0 if scale is None else scale
        total = self._total(optimizer)
        self._run.optimizer, self._run.skippable = optimizer, True
        early = self._take_early(id(optimizer))
        if "gradient" in due:
            with self._tiers.timed("gradient"):
                self._read_applied(optimizer, step, factor, total, early)
                if self._microbatches:
                    layers = self._layers(optimizer)
                    for quantities, table in self._microbatches.read(layers, total):
                        self.emit(step, "raw", quantities, table)
                    self._tiers.took("gradient", self._microbatches.seconds())
        if begun.updates is not None:
            with self._tiers.timed("update"):
                self._updates.read_gradients(begun.updates)
        if "activation" in due and self.activations is not None:
            # What one rank alone has seen must not make it go its own way.
            self._run.skippable = not one_of_many()
            with self._tiers.timed("activation"):
                self.read_activations(step, self.activations.scale(scale))
            self._tiers.took("activation", self.activations.seconds())
        self._run.skippable = False
        if self._run.skip:
            self._run.skip = False
            self.taps[id(optimizer)].hide_gradients()

    def read_activations(
        self, step: int, scale: float | Tensor | None
    ) -> Snapshot | None:
        """Read what flowed through the model since the last reading.

        Args:
            step: The step it belongs to.
            scale: What the loss was multiplied by; None asks the scaler.
        """
        watch = self.activations
        table = None if watch is None else watch.read(step, scale)
        if watch is None or table is None:
            return None
        return self.emit(step, "raw", watch.quantities, table)

    def _read_applied(
        self,
        optimizer: Optimizer,
        step: int,
        scale: float | Tensor,
        total: str,
        early: Early | None,
    ) -> None:
        if early is None or early.snapshot.step != step:
            if self.of_gradients:
                self.read_gradients(step, "applied", scale, optimizer, total)
            return
        if early.versions == versions(self._layers(optimizer).parameters):
            # Nobody has clipped: what was read is what is applied.
            return
        quantities = [*self.of_gradients, *self._hidden]
        now = self._measured(step, "applied", scale, optimizer, total, quantities)
        self._take(now)
        table = clipped(early.snapshot, now, self._of_clipping)
        if table is not None:
            self.emit(step, "applied", self._of_clipping, table)

    def _done(self, optimizer: Optimizer) -> None:
        if self.activations is not None:
            self.activations.on_done()
        if self._microbatches.watching:
            self._safely(self._microbatches.over, self._layers(optimizer))
        begun = self._begun.pop(id(optimizer), None)
        if begun is None:
            return
        if begun.due:
            self._end(optimizer, begun)
        if self._tiers.overhead is not None and (
            begun.due or not self._tiers.quiet(begun.step + 2)
        ):
            self._safely(self._rest, optimizer, begun)

    def _rest(self, optimizer: Optimizer, begun: _Begun) -> None:
        """Take hooks off the model until the step before the next reading."""
        # A clock may tell the next step late. Of several optimizers one may have
        # accumulated while another steps.
        soon = [begun.step + 1, begun.step + 2]
        if self.activations is not None:
            if len(self.taps) > 1 or self._pending("activation", soon):
                self.activations.restore()
            elif "activation" in begun.due:
                self.activations.rest()
        if self._microbatches:
            if len(self.taps) > 1 or self._pending("gradient", soon):
                self._microbatches.watch(self._outline.of(optimizer))
            elif "gradient" in begun.due:
                self._microbatches.remove()

    def _pending(self, name: str, steps: Sequence[int]) -> bool:
        return any(self._tiers.pending(name, self.taps, step) for step in steps)

    def _end(self, optimizer: Optimizer, begun: _Begun) -> None:
        step = begun.step
        if begun.updates is not None:
            with self._tiers.timed("update"):
                emit, total = (
                    partial(self.emit, step, "applied"),
                    self._total(optimizer),
                )
                self._safely(self._updates.end, begun.updates, emit, total)
        self._run.optimizer = None
        overhead = self._tiers.overhead
        if overhead is not None:
            layers = begun.layers or self._outline.of(optimizer)
            self._safely(self._tiers.over, step, layers.mesh)
            number = torch.tensor([[overhead]], dtype=torch.float64)
            rows, there = (Row("total", "total"),), ~number.isnan()
            self._sinks.take(
                Snapshot(step, "applied", rows, ("overhead",), number, there)
            )

    def _safely(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call it; what it raises does not reach the run."""
        try:
            return call(*args)
        except Exception as error:
            self.failures += 1
            if self.failures == 1:
                warnings.warn(
                    "a monitor must not stop the run it watches; reading raised "
                    f"{type(error).__name__}: {error}. Training goes on; failures from "
                    "now on are only counted, in Monitor.failures",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return None

    def _total(self, optimizer: Optimizer) -> str:
        index = list(self.taps).index(id(optimizer))
        return f"total/{index}" if len(self.taps) > 1 else "total"


def _snapshot(
    step: int, stage: Stage, quantities: Sequence[Quantity], table: Table
) -> Snapshot:
    names = tuple(quantity.name for quantity in quantities)
    return Snapshot(step, stage, table.rows, names, *table[1:])
