"""The last steps of a run as arrays `[step x row]`, and the run's own start.

Statistics that one bad step cannot move: medians, and median absolute deviations,
m = median|x − median x| · 1.4826, which is σ for a normal x. NaN and infinity do not
enter them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._snapshot import Row, Snapshot
from ._depth import Array, Profile, biases, is_weight, pairs, profiles


class History:
    """The last K snapshots, and the first few, in two arrays.

    Rows that come later, as of a layer that is unfrozen, are added; a row that is gone
    is unavailable from then on.

    Args:
        window: How many snapshots are kept, K.
        start: How many of the first ones are kept beside them.

    Raises:
        ValueError: If one of them is below 1.

    Attributes:
        rows: Every row seen, in the order of the model.
        quantities: The names of the quantities.
        seen: How many snapshots there were.
        profiles: The rows that are layers of one kind, by depth.
        parameters: The places of the parameters.
        weights: The places of parameters of two dimensions or more.
        biases: The places of the vectors that belong to one of these.
        pairs: A weight and the bias of the same layer, by their places.
    """

    def __init__(self, window: int = 64, start: int = 10) -> None:
        if window < 1 or start < 1:
            raise ValueError(
                "a history keeps at least one snapshot, and one of the start, got "
                f"window={window}, start={start}"
            )
        self.window, self.start_size = window, start
        self.rows: tuple[Row, ...] = ()
        self.quantities: tuple[str, ...] = ()
        self.seen = 0
        self.profiles: tuple[Profile, ...] = ()
        self.parameters = self.weights = self.biases = np.zeros(0, dtype=np.intp)
        self.pairs: tuple[tuple[int, int], ...] = ()
        self._last: tuple[Row, ...] = ()
        self._where: NDArray[np.intp] | None = None
        self._steps = np.zeros(2 * window, dtype=np.int64)
        # Twice the window: what is kept is always one slice, moved once in K steps.
        self._values = np.empty((2 * window, 0, 0))
        self._there = np.empty((2 * window, 0, 0), dtype=bool)
        self._start = np.empty((start, 0, 0))
        self._end = 0

    def take(self, snapshot: Snapshot) -> None:
        """Add one snapshot.

        Args:
            snapshot: What was measured at one step.
        """
        if snapshot.rows != self._last or snapshot.quantities != self.quantities:
            self._follow(snapshot)
        if self._end == 2 * self.window:
            for array in (self._steps, self._values, self._there):
                array[: self.window] = array[self.window :]
            self._end = self.window
        values, there = snapshot.values.numpy(), snapshot.available.numpy()
        if self._where is not None:
            wide = np.full(self._values.shape[1:], np.nan)
            mask = np.zeros(wide.shape, dtype=bool)
            wide[self._where], mask[self._where] = values, there
            values, there = wide, mask
        self._steps[self._end] = snapshot.step
        self._values[self._end], self._there[self._end] = values, there
        if self.seen < self.start_size:
            self._start[self.seen] = values
        self._end += 1
        self.seen += 1

    def _follow(self, snapshot: Snapshot) -> None:
        """Make room for rows that were not seen before; other quantities start anew."""
        self._last = snapshot.rows
        if snapshot.quantities != self.quantities:
            self.quantities, self.rows, self.seen, self._end = (
                snapshot.quantities,
                (),
                0,
                0,
            )
        old = self.rows
        known = {row.name for row in snapshot.rows}
        gone = [row for row in old if row.name not in known]
        self.rows = (*snapshot.rows, *gone)
        place = {row.name: i for i, row in enumerate(self.rows)}
        where = np.array([place[row.name] for row in old], dtype=np.intp)
        width = (len(self.rows), len(self.quantities))
        values = np.full((2 * self.window, *width), np.nan)
        there = np.zeros(values.shape, dtype=bool)
        start = np.full((self.start_size, *width), np.nan)
        if len(old):
            values[:, where], there[:, where] = self._values, self._there
            start[:, where] = self._start
        self._values, self._there, self._start = values, there, start
        self._where = np.arange(len(snapshot.rows)) if gone else None
        self.profiles = profiles(self.rows)
        weights = [i for i, row in enumerate(self.rows) if is_weight(row)]
        self.weights = np.array(weights, dtype=np.intp)
        parameters = [i for i, row in enumerate(self.rows) if row.kind == "parameter"]
        self.parameters = np.array(parameters, dtype=np.intp)
        self.biases = np.array(biases(self.rows), dtype=np.intp)
        self.pairs = pairs(self.rows)

    def __len__(self) -> int:
        """How many snapshots are kept."""
        return min(self._end, self.window)

    def _kept(self, last: int | None) -> slice:
        n = len(self) if last is None else min(last, len(self))
        return slice(self._end - n, self._end)

    @property
    def step(self) -> int:
        """The step of the last snapshot."""
        return int(self._steps[self._end - 1])

    def steps(self, last: int | None = None) -> NDArray[np.int64]:
        """The steps that are kept, ascending.

        Args:
            last: How many of the last ones; None for all.
        """
        return self._steps[self._kept(last)]

    def __getitem__(self, quantity: str) -> Array:
        """All kept numbers of a quantity, `[step x row]`, NaN where unavailable."""
        return self.last(quantity)

    def last(self, quantity: str, last: int | None = None) -> Array:
        """The last numbers of a quantity, `[step x row]`, NaN where unavailable.

        Args:
            quantity: Its name.
            last: How many steps; None for all that are kept.
        """
        return self._values[self._kept(last), :, self.quantities.index(quantity)]

    def available(self, quantity: str, last: int | None = None) -> NDArray[np.bool_]:
        """Where there is a number, which may be NaN, `[step x row]`.

        Args:
            quantity: Its name.
            last: How many steps; None for all that are kept.
        """
        return self._there[self._kept(last), :, self.quantities.index(quantity)]

    def start(self, quantity: str) -> Array:
        """The numbers of the first snapshots of the run, `[step x row]`.

        Args:
            quantity: Its name.
        """
        kept = self._start[: min(self.seen, self.start_size)]
        return kept[:, :, self.quantities.index(quantity)]

    def total(self) -> int:
        """The index of the row of the whole model.

        Raises:
            ValueError: If the snapshots have none.
        """
        for i, row in enumerate(self.rows):
            if row.kind == "total":
                return i
        raise ValueError("a watched model has a row of kind 'total', got none")


def median(x: Array, axis: int = 0) -> Array:
    """The median of the finite entries; NaN where there are none.

    Args:
        x: The numbers.
        axis: Along which axis.
    """
    finite = np.isfinite(x)
    count = finite.sum(axis)
    ordered = np.sort(np.where(finite, x, np.inf), axis)
    low = np.take_along_axis(
        ordered, np.expand_dims(np.maximum(count - 1, 0) // 2, axis), axis
    )
    high = np.take_along_axis(
        ordered, np.expand_dims(np.minimum(count // 2, x.shape[axis] - 1), axis), axis
    )
    with np.errstate(invalid="ignore"):
        middle = (low + high).squeeze(axis) / 2
    return np.where(count > 0, middle, np.nan)


def deviation(x: Array, axis: int = 0) -> Array:
    """The median absolute deviation of the finite entries, scaled to a normal's σ.

    Args:
        x: The numbers.
        axis: Along which axis.
    """
    with np.errstate(invalid="ignore"):
        distance = np.abs(x - np.expand_dims(median(x, axis), axis))
    return 1.4826 * median(distance, axis)
