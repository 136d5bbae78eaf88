"""Keeps the time that watching takes within a share of the run's."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median


class Governor:
    """Spends at most a share of the run's own time, by reading less often.

    What is watched comes in tiers, which cost differently: gradients, updates,
    activations. Each has its share of the budget; what a cheap one does not need, even
    at every step, goes to the dearer ones. A reading is followed by as many unread
    steps as it takes to earn the next one. Time is the host's: of kernels that a device
    runs meanwhile it sees what the host waits for.

    Args:
        budget: Seconds of watching allowed for a second of training.
        tiers: What there is to read.
        least: The fewest steps from one reading to the next.

    Raises:
        ValueError: If the budget is not above 0 and below 1.

    Example:
        >>> governor = Governor(0.01, ["gradient"])
        >>> for step in range(3):
        ...     governor.step(now=step * 1.0)
        >>> governor.spent("gradient", 0.05)
        >>> governor.wait("gradient")
        8
    """

    def __init__(self, budget: float, tiers: Sequence[str], least: int = 1) -> None:
        number = isinstance(budget, int | float) and not isinstance(budget, bool)
        if not number or not 0 < budget < 1:
            raise ValueError(
                "a budget is the share of the run's time that watching may take, above "
                f"0 and below 1, got {budget!r}; 0.02 is two per cent"
            )
        self.budget = budget
        self._least = least
        self._seconds = dict.fromkeys(tiers, 0.0)
        self._costs: dict[str, deque[float]] = {t: deque(maxlen=5) for t in tiers}
        self._last: float | None = None
        self._since = 0.0
        self._fixed = 0.0
        self._passed = 0.0
        # What hooks take at steps at which nothing is read.
        self._idle: deque[float] = deque(maxlen=9)
        self._own = 0.0
        self._steps = 0

    @property
    def overhead(self) -> float:
        """Seconds of watching a second of training so far; NaN at the first step."""
        spent = self._fixed + sum(self._seconds.values()) - self._since
        return spent / self._own if self._own > 0 else math.nan

    def step(self, now: float) -> None:
        """A step of the run begins.

        Args:
            now: Seconds on a steady clock.
        """
        if self._last is not None:
            self._own += max(now - self._last - self._since, 0.0)
            self._steps += 1
            if self._since == self._passed:
                self._idle.append(self._passed)
        self._last, self._since, self._passed = now, 0.0, 0.0

    def spent(self, tier: str, seconds: float) -> None:
        """A reading was made.

        Args:
            tier: Of what.
            seconds: How long it took.
        """
        self._seconds[tier] += seconds
        self._since += seconds
        self._costs[tier].append(seconds)

    def passed(self, seconds: float) -> None:
        """Time went by in hooks, whatever was read.

        Args:
            seconds: How long.
        """
        self._fixed += seconds
        self._passed += seconds
        self._since += seconds

    def wait(self, tier: str) -> int:
        """How many steps after this one the tier is to be read again.

        Args:
            tier: One that was read.
        """
        if self._own <= 0:
            return self._least
        step = self._own / self._steps
        share, cost = self._shares(step)[tier], self._cost(tier)
        # A long pause, as for a validation, does not pay for a burst of readings.
        credit = min(share * self._own - self._seconds[tier], cost)
        return max(self._least, math.ceil((cost - credit) / (share * step)))

    def _cost(self, tier: str) -> float:
        return median(self._costs[tier]) if self._costs[tier] else 0.0

    def _shares(self, step: float) -> dict[str, float]:
        """What each tier may spend: a cheap one leaves what it does not need."""
        # Where the hooks alone take the budget, something is still read now and then.
        idle = median(self._idle) if self._idle else 0.0
        left = max(self.budget - idle / step, self.budget / 10)
        shares = dict[str, float]()
        for tier in sorted(self._seconds, key=self._cost):
            equal = left / (len(self._seconds) - len(shares))
            needed = self._cost(tier) / (step * self._least)
            shares[tier] = equal
            left -= min(equal, needed)
        return shares
