"""What `read_run` gives: one quantity over a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._snapshot import Kind, Row


@dataclass(frozen=True, eq=False)
class History:
    """One quantity over a run.

    Attributes:
        quantity: Its name.
        stage: Where the gradient was read, None if the file does not say.
        steps: The steps at which it was read, ascending, `[step]`.
        rows: What was measured: totals, layers, and parameters if they were written; of
            each kind in the order of the model.
        table: The numbers, float64 `[step x row]`, NaN where there is none.
        measured: Where there is one, bool `[step x row]`: tells a number that is
            missing from one that is NaN.
    """

    quantity: str
    stage: str | None
    steps: NDArray[np.int64]
    rows: tuple[Row, ...]
    table: NDArray[np.float64]
    measured: NDArray[np.bool_]

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of the model."""
        return self._names("layer")

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that were written, in the order of the model."""
        return self._names("parameter")

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The numbers of the layers, float64 `[step x layer]`, NaN where none."""
        return self.table[:, self._where("layer")]

    @cached_property
    def available(self) -> NDArray[np.bool_]:
        """Where a layer has a number, bool `[step x layer]`."""
        return self.measured[:, self._where("layer")]

    @cached_property
    def total(self) -> NDArray[np.float64]:
        """The number of the whole model, `[step]`, NaN where there is none.

        With several optimizers, of the parameters of the one that took the step; their
        own are `history["total/0"]`, ….
        """
        total = np.full(len(self.steps), np.nan)
        for i in self._where("total"):
            np.copyto(total, self.table[:, i], where=self.measured[:, i])
        return total

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """The numbers of one row, or of `"total"`, at each of `steps`."""
        for i, row in enumerate(self.rows):
            if row.name == name and name != "total":
                return self.table[:, i]
        if name == "total":
            return self.total
        raise KeyError(f"no layer {name!r}; layers are {', '.join(self.layers)}")

    def _where(self, kind: Kind) -> list[int]:
        return [i for i, row in enumerate(self.rows) if row.kind == kind]

    def _names(self, kind: Kind) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows if row.kind == kind)
