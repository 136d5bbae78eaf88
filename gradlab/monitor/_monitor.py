"""Watches the gradients of a model in a plain training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from .._snapshot import Snapshot, Stage
from ..quantities import GradNorm, Quantity
from ._activation_watch import ActivationWatch
from ._dead_units import DeadUnitLedger
from ._layers import Outline
from ._options import chosen_quantities
from ._reading import Table, gradients, tabulate
from ._schedule import EveryNSteps
from ._sinks import Sink, Sinks
from ._taps import OptimizerTap, Read
from ._updates import StepReading, Updates

_OF_UPDATES = ("update", "step", "previous")


class Monitor:
    """Reads the gradients of a model once an optimizer step and hands them on.

    A watched optimizer is read the moment before it applies its gradient, so clipping,
    accumulation and the reduction over ranks have happened and the stage is `applied`.
    A closure is read after its first run. The loss scale of a fused optimizer under
    `GradScaler` is divided out. A step that `GradScaler` skips is not seen, except that
    a fused optimizer is called and its non-finite gradient reported.

    Watching changes nothing: the model gets no hook, the gradients are only read, on
    their device, with one transfer to the host for all of them (and a second for those
    that float32 cannot hold). A step that is not read costs one dictionary lookup.

    Rows of a snapshot: the total, the modules that own trainable parameters, these
    parameters. A frozen parameter has no row; one without a gradient is unavailable.
    With several optimizers each snapshot has the
    parameters of the one that takes the step, and its total is called `total/0`,
    `total/1`, … in the order in which they were attached.

    Under DistributedDataParallel every rank can watch the module inside the wrapper;
    give sinks to one of them. Of sharded gradients (DTensor: FSDP2, tensor parallelism)
    each rank reads its shard, and one collective for all of them makes the numbers
    those of the whole: every rank must watch, with the same `every_n_steps`.

    Args:
        model: The model; its module paths name the rows.
        optimizer: The optimizer to watch; more with `attach`. None to call `observe`
            yourself.
        quantities: What to measure.
        every_n_steps: Read the first of every n steps.
        clock: Tells the step of a reading; None counts the optimizer steps seen.
        activations: Whether to watch the outputs of modules too, with forward hooks,
            and the gradients that come back to them: True for every module that owns
            parameters or is an activation function, or globs on module paths; None if
            a quantity of activations is named. They get a snapshot of their own.
        scaler: The GradScaler of the run; its scale is divided out of the gradients of
            activations, which nobody unscales.
        sinks: What is called with each snapshot. A sink that fails is reported once,
            its losses are counted in `lost`, and training goes on.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the model has nothing to train, `every_n_steps` is below 1, or
            two quantities share a name.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters())
        >>> with Monitor(model, optimizer, sinks=[lambda s: print(s.scalars())]):
        ...     model(torch.tensor([[3.0, 4.0]])).sum().backward()
        ...     optimizer.step()
        {'grad_norm/total': 5.09901951..., 'grad_norm/root': 5.09901951...}
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        quantities: Sequence[Quantity] = (GradNorm(),),
        every_n_steps: int = 1,
        clock: Callable[[], int] | None = None,
        activations: bool | Sequence[str] | None = None,
        scaler: GradScaler | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        quantities = chosen_quantities(model, quantities, activations)
        self.model = model
        self.quantities = quantities
        self._outline = Outline(model)
        self._sinks = Sinks(sinks)
        self._schedule = EveryNSteps(every_n_steps)
        self._step = 0
        self._clock = clock
        self._taps: dict[int, OptimizerTap] = {}
        self._of_gradients = [q for q in quantities if q.feed == "gradient"]
        self._updates = Updates([q for q in quantities if q.feed in _OF_UPDATES])
        self._reading: dict[int, tuple[int, StepReading]] = {}
        self._activations: ActivationWatch | None = None
        if of_activations := [q for q in quantities if q.feed == "activation"]:
            patterns = None if isinstance(activations, bool) else activations
            self._activations = ActivationWatch(
                model, patterns, of_activations, self._may_be_read, scaler
            )
        if optimizer is not None:
            self.attach(optimizer)

    @property
    def step(self) -> int:
        """The step of the next snapshot: the optimizer steps seen, or as it was set.

        Set it after a resume; it counts on from there.
        """
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"a step is a whole number, counted from 0, got {step!r}")
        self._step = step

    @property
    def lost(self) -> int:
        """How many snapshots sinks have failed to take."""
        return self._sinks.lost

    @property
    def dead_units(self) -> DeadUnitLedger | None:
        """When each unit was last active; None unless `DeadUnits` is measured."""
        return None if self._activations is None else self._activations.ledger

    def attach(self, optimizer: Optimizer) -> None:
        """Watch one more optimizer.

        Args:
            optimizer: An optimizer of some of the model's parameters.

        Raises:
            TypeError: If it is not an optimizer.
            ValueError: If it is watched already or has no parameter of the model.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "a watched optimizer is a torch.optim.Optimizer, got "
                f"{type(optimizer).__name__}"
            )
        if id(optimizer) in self._taps:
            raise ValueError(
                f"an optimizer is attached once, got this {type(optimizer).__name__} "
                "again; detach() lets go of all"
            )
        if _owned(optimizer).isdisjoint(id(p) for p in self.model.parameters()):
            raise ValueError(
                "a watched optimizer trains the watched model, got "
                f"{type(optimizer).__name__}, which shares no parameter with "
                f"{type(self.model).__name__}; was it made from another copy?"
            )
        self._taps[id(optimizer)] = OptimizerTap(optimizer, self._on_step, self._done)

    def detach(self) -> None:
        """Leave no hook behind and flush the sinks; safe to call twice."""
        for tap in self._taps.values():
            tap.remove()
        self._taps.clear()
        self._reading.clear()
        if self._activations is not None:
            self._activations.remove()
        self._sinks.flush()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()
        self._sinks.close()

    @torch.no_grad()
    def observe(
        self,
        step: int,
        stage: Stage,
        scale: float | Tensor = 1.0,
        *,
        optimizer: Optimizer | None = None,
        total: str = "total",
    ) -> Snapshot:
        """Read the gradients now, whatever the schedule says.

        Args:
            step: The step they belong to.
            stage: Where they are on their way to the update.
            scale: What the loss was multiplied by; it is divided out.
            optimizer: Read its parameters only; None reads the whole model.
            total: The name of the total row.

        Returns:
            The snapshot that the sinks were handed.

        Raises:
            ValueError: If no quantity is of gradients.
        """
        if not self._of_gradients:
            raise ValueError(
                "observe() reads quantities of gradients, got none: updates are "
                "measured when a watched optimizer takes its step"
            )
        layers = self._outline.of(optimizer)
        quantities = self._of_gradients
        table = tabulate(layers, gradients(layers), quantities, scale, total)
        return self._emit(step, stage, self._of_gradients, table)

    def observe_activations(
        self, step: int, scale: float | Tensor | None = None
    ) -> Snapshot | None:
        """Read now what flowed through the model since the last reading.

        A watched optimizer calls it at its step. The stage is `raw`: of this rank, the
        microbatches of a step taken together.

        Args:
            step: The step it belongs to.
            scale: What the loss was multiplied by; None asks the scaler.

        Returns:
            The snapshot that the sinks were handed, one row a module in the order of
            the forward; None if no gradient came back to a watched module.

        Raises:
            ValueError: If activations are not watched.
        """
        if self._activations is None:
            raise ValueError(
                "observe_activations() reads watched activations, got a Monitor made "
                "without activations=True"
            )
        table = self._activations.read(step, scale)
        if table is None:
            return None
        return self._emit(step, "raw", self._activations.quantities, table)

    def _emit(
        self, step: int, stage: Stage, quantities: Sequence[Quantity], table: Table
    ) -> Snapshot:
        names = tuple(quantity.name for quantity in quantities)
        snapshot = Snapshot(step, stage, table.rows, names, *table[1:])
        self._sinks.take(snapshot)
        return snapshot

    def _on_step(self, optimizer: Optimizer) -> Read | None:
        if self._clock is not None:
            self._step = self._clock()
        step, self._step = self._step, self._step + 1
        due = self._schedule.due(id(optimizer), step)
        if self._activations is not None:
            self._activations.on_step(due)
        if not due:
            return None
        if self._updates:
            begun = self._updates.begin(self._outline.of(optimizer))
            self._reading[id(optimizer)] = step, begun
        return partial(self._read_step, optimizer, step)

    def _may_be_read(self) -> bool:
        step = self._step if self._clock is None else self._clock()
        return not self._taps or self._schedule.pending(self._taps, step)

    def _done(self, optimizer: Optimizer) -> None:
        if self._activations is not None:
            self._activations.on_done()
        if id(optimizer) in self._reading:
            step, begun = self._reading.pop(id(optimizer))
            emit = partial(self._emit, step, "applied")
            self._updates.end(begun, emit, self._total(optimizer))

    def _total(self, optimizer: Optimizer) -> str:
        index = list(self._taps).index(id(optimizer))
        return f"total/{index}" if len(self._taps) > 1 else "total"

    def _read_step(self, optimizer: Optimizer, step: int) -> None:
        # GradScaler leaves it on a fused optimizer, which unscales inside its kernel.
        scale: Tensor | None = getattr(optimizer, "grad_scale", None)
        total = self._total(optimizer)
        if self._of_gradients:
            factor = 1.0 if scale is None else scale
            self.observe(step, "applied", factor, optimizer=optimizer, total=total)
        if self._activations is not None:
            self.observe_activations(step, self._activations.scale(scale))
        if id(optimizer) in self._reading:
            emit = partial(self._emit, step, "applied")
            self._updates.read_gradients(self._reading[id(optimizer)][1], emit, total)


def _owned(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
