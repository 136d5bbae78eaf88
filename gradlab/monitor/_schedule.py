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

    Raises:
        ValueError: If n is not a whole number of at least 1.

    Example:
        >>> schedule = EveryNSteps(4)
        >>> [step for step in range(10) if schedule.due(optimizer=0, step=step)]
        [0, 4, 8]
    """

    n: int
    _window: dict[int, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(
                "every_n_steps is a whole number of optimizer steps, at least 1, got "
                f"{self.n!r}; 1 reads every step"
            )

    def pending(self, optimizers: Iterable[int], step: int) -> bool:
        """Whether one of the optimizers would be read if it took this step.

        Args:
            optimizers: Identities of optimizers.
            step: The step on the run's axis.
        """
        window = step // self.n
        return any(self._window.get(optimizer) != window for optimizer in optimizers)

    def due(self, optimizer: int, step: int) -> bool:
        """Whether this step is to be read; true once a window.

        Args:
            optimizer: The identity of the optimizer that takes the step.
            step: The step on the run's axis.
        """
        window = step // self.n
        if self._window.get(optimizer) == window:
            return False
        self._window[optimizer] = window
        return True
