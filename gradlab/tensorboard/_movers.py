"""The rows that moved most since they were last written."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray


class Movers:
    """Chooses k rows a step, so that k points a step tell of every curve.

    The move of a row from v, the number last written, to w is scale-free,

        |w − v| / max(|v|, |w|),

    and the first number, or one that turns NaN or back, is an infinite move. A row that
    drifts is chosen when the drift has summed up: none is forgotten.

    Args:
        k: How many rows a step.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self._written: dict[Hashable, NDArray[np.float64]] = {}
        self._known: dict[Hashable, NDArray[np.bool_]] = {}

    def __call__(
        self,
        key: Hashable,
        values: NDArray[np.float64],
        available: NDArray[np.bool_],
        always: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Choose, and take the chosen for written.

        Args:
            key: Whose rows they are.
            values: Their numbers, `[row]`.
            available: Where there is one, `[row]`.
            always: The rows to choose whatever they do, beside the k, `[row]`.

        Returns:
            The indices of the chosen rows, ascending. A row's first number is always
            chosen.
        """
        if key not in self._written:
            self._written[key] = np.zeros(values.shape)
            self._known[key] = np.zeros(values.shape, dtype=bool)
        written, known = self._written[key], self._known[key]
        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.maximum(np.abs(values), np.abs(written))
            move = np.abs(values - written) / size
        same = (values == written) | (np.isnan(values) & np.isnan(written))
        move = np.where(same, 0.0, np.where(np.isnan(move), np.inf, move))
        chosen = available & (always | ~known)
        move[chosen | ~available] = 0.0
        most = np.argsort(-move, kind="stable")[: self.k]
        chosen[most[move[most] > 0]] = True
        written[chosen] = values[chosen]
        known |= chosen
        return np.flatnonzero(chosen)

    def forget(self) -> None:
        """Take nothing for written, as when a record was lost."""
        self._written.clear()
        self._known.clear()
