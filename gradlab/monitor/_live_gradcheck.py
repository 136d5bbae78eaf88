"""Checks hand-written backward passes while they train, on slices of the real batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType

import torch
from torch import nn
from torch.optim import Optimizer

from .._snapshot import Row, Snapshot
from ..subject import undisturbed
from ._backward_error import BackwardError, backward_error, worse
from ._function_calls import unobserved
from ._kept_calls import KeptCall, KeptCalls, reason_of
from ._known_functions import Op, known_functions
from ._schedule import EveryNSteps
from ._sinks import Sink, Sinks
from ._taps import OptimizerTap, Read

QUANTITIES = ("gradcheck_error", "gradcheck_cosine", "gradcheck_ratio")


class LiveGradcheck:
    """Compares explicit backwards with autograd of their references as they train.

    On a sampled step a few rows are kept of what each Function was called with, and of
    the gradient that came back to it. Before the optimizer takes its step, the explicit
    backward and autograd of the reference run on these rows, outside of the training's
    graph: the relative error, the cosine and the ratio of the error to what rounding
    explains are one row a call site of a snapshot of the stage `raw`. Half of the rows
    are those with the largest inputs, which sample inputs never reach.

    What is seen is every eager call of a known Function in a model that trains, of a
    module or of a functional in some forward, also through a captured `apply`; a
    Function is known if it is of `gradlab.layers` or registered. Not seen: what
    torch.compile compiled, what `torch.func` transforms, what no gradient comes back
    to. Not compared, with the reason in `skipped`: a Function that draws random
    numbers, tensors of a subclass (DTensor), a parameter that was changed in place
    since.

    Watching changes nothing: no hook is on the model, gradients and parameters are only
    read, and random generators are put back. The registered classes have a stand-in for
    `forward` until `detach`. A call on a step that is not sampled costs a microsecond.

    Args:
        model: The model; its module paths name the call sites.
        optimizer: The optimizer whose steps are counted; more with `attach`. None to
            call `read` yourself: then every step is sampled.
        ops: What is checked beside gradlab's own: a Function, whose own forward is then
            the reference, a pair of one and its reference, or an OpInfo. A reference
            takes the arguments of `forward`.
        every_n_steps: Sample the first of every n steps.
        sites: How many call sites are compared at a sampled step; they take turns.
        rows: How many rows of the batch are kept, at most. Where an argument holds
            integers, which may be indices, a registered Function runs on all rows.
        clock: Tells the step of a reading; None counts the optimizer steps seen.
        sinks: What is called with each snapshot.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of its range or a Function registered twice.

    Attributes:
        skipped: Call site to the reason why it was not compared, the last time.

    Example:
        >>> class Cube(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x**3
        ...
        ...     @staticmethod
        ...     def backward(ctx, grad_y):
        ...         (x,) = ctx.saved_tensors
        ...         return grad_y * 2 * x**2
        >>> model = nn.Linear(2, 1)
        >>> with LiveGradcheck(model, ops=[Cube]) as live:
        ...     Cube.apply(model(torch.ones(4, 2))).sum().backward()
        ...     print(f"{live.read(step=0)['gradcheck_error', 'root:Cube']:.3f}")
        0.333
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        ops: Sequence[Op] = (),
        every_n_steps: int = 100,
        sites: int = 16,
        rows: int = 8,
        clock: Callable[[], int] | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"a model is an nn.Module, got {type(model).__name__}")
        for name, number in (("sites", sites), ("rows", rows)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(
                    f"{name} is a whole number, at least 1, got {name}={number!r}"
                )
        self.model = model
        self._sinks = Sinks(sinks)
        self._schedule = EveryNSteps(every_n_steps)
        self._clock = clock
        self._step = 0
        self._taps: dict[int, OptimizerTap] = {}
        self._rows: dict[str, Row] = {}
        self._stepping = False
        functions = known_functions(ops)
        self._kept = KeptCalls(model, functions, rows, sites, self._due)
        self.skipped = self._kept.skipped
        try:
            if optimizer is not None:
                self.attach(optimizer)
        except BaseException:
            # Nothing may stand on the classes.
            self.detach()
            raise

    @property
    def lost(self) -> int:
        """How many snapshots sinks have failed to take."""
        return self._sinks.lost

    def attach(self, optimizer: Optimizer) -> None:
        """Read at the steps of one more optimizer.

        Args:
            optimizer: An optimizer.

        Raises:
            TypeError: If it is not an optimizer.
            ValueError: If it is watched already.
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
        self._kept.restore()
        self._taps[id(optimizer)] = OptimizerTap(optimizer, self._on_step, self._done)

    def detach(self) -> None:
        """Leave no trace behind and flush the sinks; safe to call twice."""
        for tap in self._taps.values():
            tap.remove()
        self._taps.clear()
        self._kept.remove()
        self._sinks.flush()

    def __enter__(self) -> LiveGradcheck:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()
        self._sinks.close()

    def read(self, step: int) -> Snapshot | None:
        """Compare now what was seen since the last reading.

        A watched optimizer calls it before it takes its step.

        Args:
            step: The step that it belongs to.

        Returns:
            The snapshot that the sinks were handed, one row a call site; None if
            nothing could be compared.
        """
        calls = self._kept.calls
        self._kept.restart(False if self._stepping else None)
        worst: dict[str, BackwardError] = {}
        if calls:
            with _quiet():
                for site, kept in calls.items():
                    self._compare(site, kept, worst)
        if not worst:
            return None
        rows = tuple(self._rows[s] for s in self._kept.sites if s in self._rows)
        table = [worst.get(row.name, (math.nan,) * 3) for row in rows]
        values = torch.tensor(table, dtype=torch.float64)
        there = torch.tensor([[row.name in worst] * 3 for row in rows])
        snapshot = Snapshot(step, "raw", rows, QUANTITIES, values, there)
        self._sinks.take(snapshot)
        return snapshot

    def _compare(
        self, site: str, calls: Iterable[KeptCall], worst: dict[str, BackwardError]
    ) -> None:
        try:
            for call in calls:
                call.refuse_changed()
                explicit, known = call.known.function.apply, call.known
                with torch.autocast(call.slice.device, enabled=False):
                    error = backward_error(
                        explicit, known.autograd, call.slice, known.peer
                    )
                if error is not None:
                    worst[site] = worse(worst.get(site, error), error)
                    self._rows[site] = Row(site, "layer", note=_note(call))
            self.skipped.pop(site, None)
        except Exception as reason:
            self.skipped[site] = reason_of(reason)

    def _due(self) -> bool:
        step = self._step if self._clock is None else self._clock()
        return not self._taps or self._schedule.pending(self._taps, step)

    def _on_step(self, optimizer: Optimizer) -> Read | None:
        self._stepping = True
        if self._clock is not None:
            self._step = self._clock()
        step, self._step = self._step, self._step + 1
        if not self._schedule.due(id(optimizer), step):
            self._kept.restart(False)
            return None
        if not self._kept.watching:
            # A closure runs the model within the step.
            self._kept.restart(True)
        return partial(self.read, step)

    def _done(self, optimizer: Optimizer) -> None:
        self._stepping = False
        self._kept.restart()


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, nothing that runs leaves a trace, and nobody observes it."""
    with undisturbed(), unobserved(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _note(call: KeptCall) -> str:
    dtype = str(call.slice.dtype).removeprefix("torch.")
    return f"{call.known.name} ({call.known.where}) in {dtype}"
