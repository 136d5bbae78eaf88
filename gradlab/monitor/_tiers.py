"""The tiers of watching: what is read at a step, and what that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

from ._agreement import longest
from ._governor import Governor
from ._schedule import EveryNSteps

P = ParamSpec("P")
T = TypeVar("T")
_NONE: frozenset[str] = frozenset()


class Tiers:
    """Says which tiers are due at a step, by the schedule and the budget.

    Args:
        names: Of the tiers in use.
        every_n_steps: Read the first of every n steps.
        start: The first step to read.
        end: The first step not to read any more; None reads to the end.
        budget: Seconds of watching allowed for a second of training; None sets no
            limit.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        names: Sequence[str],
        every_n_steps: int,
        start: int,
        end: int | None,
        budget: float | None,
    ) -> None:
        self._options = f"every_n_steps={every_n_steps}, {start=}, {end=}, {budget=}"
        self._schedules = {n: EveryNSteps(every_n_steps, start, end) for n in names}
        # Also where no tier is in use, a wrong number is refused.
        least = EveryNSteps(every_n_steps, start, end).n
        self._governor = None if budget is None else Governor(budget, names, least)
        self._took: dict[str, float] = {}
        self._timed = 0.0
        self._waits: dict[str, int] = dict.fromkeys(names, 0)
        # No tier is due before it.
        self._first = 0

    def __str__(self) -> str:
        """The options."""
        return self._options

    @property
    def overhead(self) -> float | None:
        """Seconds of watching a second of training; None without a budget."""
        return None if self._governor is None else self._governor.overhead

    def due(self, optimizer: int, step: int) -> frozenset[str]:
        """The tiers to read at the step that begins.

        Args:
            optimizer: The identity of the optimizer that takes the step.
            step: The step.
        """
        if self._governor is not None:
            self._governor.step(perf_counter())
            if self.quiet(step):
                return _NONE
        schedules = self._schedules.items()
        return frozenset(n for n, one in schedules if one.due(optimizer, step))

    def quiet(self, step: int) -> bool:
        """Whether all tiers wait until after a step, for want of time.

        Args:
            step: The step.
        """
        return step < self._first

    def pending(self, name: str, optimizers: Iterable[int], step: int) -> bool:
        """Whether a tier would be read if one of the optimizers took this step.

        Args:
            name: The tier.
            optimizers: Identities of optimizers.
            step: The step.
        """
        schedule = self._schedules.get(name)
        return schedule is not None and schedule.pending(optimizers, step)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Within it a tier is read.

        Args:
            name: The tier.
        """
        if self._governor is None:
            yield
            return
        start = perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - start
            self._timed += seconds
            self.took(name, seconds)

    def counted(self, call: Callable[P, T]) -> Callable[P, T]:
        """A function whose time counts, beside that of the tiers read in it.

        Args:
            call: The function.
        """
        governor = self._governor
        if governor is None:
            return call

        def count(*args: P.args, **kwargs: P.kwargs) -> T:
            start, timed = perf_counter(), self._timed
            try:
                return call(*args, **kwargs)
            finally:
                seconds = perf_counter() - start
                governor.passed(max(seconds - (self._timed - timed), 0.0))

        return count

    def took(self, name: str, seconds: float) -> None:
        """Reading a tier took a while.

        Args:
            name: The tier.
            seconds: How long.
        """
        self._took[name] = self._took.get(name, 0.0) + seconds

    def over(self, step: int, mesh: Any = None) -> None:
        """The step is over: what was read is not read again before it is earned.

        Args:
            step: The step.
            mesh: The device mesh of a sharded model, whose ranks must agree.
        """
        if self._governor is None:
            return
        took, self._took = self._took, {}
        for name in sorted(took):
            self._governor.spent(name, took[name])
            wait = self._governor.wait(name)
            # Ranks that read different steps would wait for each other forever.
            wait = wait if mesh is None else longest(wait, mesh)
            self._waits[name] = step + wait
            self._schedules[name].wait(step + wait)
        self._first = min(self._waits.values(), default=0)
