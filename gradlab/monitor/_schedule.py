"""Which steps are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class EveryNSteps:
    """The first step of each window of n steps, for each optimizer by itself.

    With one optimizer these are steps 0, n, 2n, … of the run's own axis, also after a
    resume. Two optimizers that take turns on one axis are both read, which `step % n`
    would not do.

    Args:
        n: The length of the window.
        start: The first step to read.
        end: The first step not to read any more; None reads to the end.

    Raises:
        ValueError: If n is not a whole number of at least 1, or no step is left.

    Example:
        >>> schedule = EveryNSteps(4, start=3)
        >>> [step for step in range(14) if schedule.due(optimizer=0, step=step)]
        [3, 4, 8, 12]
    """

    n: int
    start: int = 0
    end: int | None = None
    _window: dict[int, int] = field(default_factory=dict, repr=False)
    _wait: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(
                "every_n_steps is a whole number of optimizer steps, at least 1, got "
                f"{self.n!r}; 1 reads every step"
            )
        bounds = [self.start, *([] if self.end is None else [self.end])]
        whole = all(isinstance(b, int) and not isinstance(b, bool) for b in bounds)
        if not whole or self.start < 0 or (self.end is not None and self.end <= 0):
            raise ValueError(
                "start and end are steps counted from 0, got "
                f"start={self.start!r}, end={self.end!r}"
            )
        if self.end is not None and self.end <= self.start:
            raise ValueError(
                "steps are read from start up to end, got no step between "
                f"start={self.start} and end={self.end}"
            )

    def pending(self, optimizers: Iterable[int], step: int) -> bool:
        """Whether one of the optimizers would be read if it took this step.

        Args:
            optimizers: Identities of optimizers.
            step: The step on the run's axis.
        """
        if not self._open(step):
            return False
        window = step // self.n
        return any(self._window.get(optimizer) != window for optimizer in optimizers)

    def due(self, optimizer: int, step: int) -> bool:
        """Whether this step is to be read; true once a window.

        Args:
            optimizer: The identity of the optimizer that takes the step.
            step: The step on the run's axis.
        """
        if not self.pending([optimizer], step):
            return False
        self._window[optimizer] = step // self.n
        return True

    def wait(self, step: int) -> None:
        """Read nothing before a step, for want of time.

        Args:
            step: The step on the run's axis.
        """
        self._wait = step

    def _open(self, step: int) -> bool:
        first = max(self.start, self._wait)
        return first <= step and (self.end is None or step < self.end)
