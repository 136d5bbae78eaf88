"""A snapshot: what was measured at one step, one row a tensor, one column a quantity.

The shape holds for everything that is watched: rows are parameters, layers and the
total; columns are quantities; each number is from one named stage of the gradient's way
from the backward pass to the update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

Kind = Literal["parameter", "layer", "total"]
"""What a row stands for."""

Stage = Literal["raw", "reduced", "unscaled", "clipped", "applied"]
"""Where the gradient was read on its way from the backward pass to the update.

`raw`: of one microbatch on one rank. `reduced`: summed or averaged over ranks.
`unscaled`: of the whole step, divided by the loss scale, not yet clipped. `clipped`:
after clipping. `applied`: exactly what the optimizer is about to apply.
"""

_STAGES = get_args(Stage)


@dataclass(frozen=True)
class Row:
    """One row of a snapshot.

    Attributes:
        name: A module path for a layer (`"encoder.0"`; `"root"` for the parameters that
            the model itself owns), a full parameter name (`"encoder.0.weight"`) for a
            parameter, `"total"` for the total.
        kind: What the name names.
        shape: Of a parameter, its shape; None if that is not known. Two rows of the
            same name and kind are equal whatever it is.
        note: What a person should know beside the name; it does not count either.

    Example:
        >>> Row("encoder.0.weight", "parameter").tag
        'encoder.0/weight'
    """

    name: str
    kind: Kind
    shape: tuple[int, ...] | None = field(default=None, compare=False)
    note: str = field(default="", compare=False)

    @property
    def tag(self) -> str:
        """The name in a log: a parameter is filed below its layer, after a slash."""
        if self.kind != "parameter":
            return self.name
        layer, _, parameter = self.name.rpartition(".")
        return f"{layer or 'root'}/{parameter}"


class Rows(tuple[Row, ...]):
    """Rows whose names are unique: checked once, not at each step.

    Args:
        rows: The rows.

    Raises:
        ValueError: If two have one name.
    """

    __slots__ = ()

    def __new__(cls, rows: Iterable[Row]) -> Self:
        found = super().__new__(cls, rows)
        _check_unique("rows", [row.name for row in found])
        return found


def _check_unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"names of {what} are unique, got twice: {', '.join(twice)}")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What was measured at one step.

    Attributes:
        step: The optimizer step the gradient belongs to; 0 is the first one.
        stage: Where the gradient was read.
        rows: What was measured, in the order of the model; names are unique.
        quantities: Names of the columns.
        values: The numbers, float64 on the CPU, `[rows x quantities]`, NaN where
            unavailable.
        available: Bool of the same shape, False where there was nothing to measure (a
            parameter without a gradient): that is neither 0 nor a gradient of NaN.

    Raises:
        ValueError: If a shape, dtype, device or name is not as said above.

    Example:
        >>> rows = (Row("total", "total"), Row("fc", "layer"))
        >>> values = torch.tensor([[5.0], [5.0]], dtype=torch.float64)
        >>> snapshot = Snapshot(
        ...     0, "applied", rows, ("grad_norm",), values, values == values
        ... )
        >>> snapshot["grad_norm", "fc"]
        5.0
        >>> snapshot.scalars()
        {'grad_norm/total': 5.0, 'grad_norm/fc': 5.0}
    """

    step: int
    stage: Stage
    rows: tuple[Row, ...]
    quantities: tuple[str, ...]
    values: Tensor
    available: Tensor

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"a step is counted from 0, got step={self.step}")
        if self.stage not in _STAGES:
            raise ValueError(f"a stage is one of {_STAGES}, got stage={self.stage!r}")
        if not isinstance(self.rows, Rows):
            object.__setattr__(self, "rows", Rows(self.rows))
        _check_unique("quantities", self.quantities)
        shape = (len(self.rows), len(self.quantities))
        for what, tensor, dtype in (
            ("values", self.values, torch.float64),
            ("available", self.available, torch.bool),
        ):
            got = (tuple(tensor.shape), tensor.dtype, tensor.device.type)
            if got != (shape, dtype, "cpu"):
                raise ValueError(
                    f"{what} must be {dtype} [rows x quantities] = {list(shape)} on "
                    f"cpu, got {got[1]} {list(got[0])} on {got[2]}"
                )

    def __getitem__(self, key: tuple[str, str]) -> float:
        """The number of a quantity for a row, as `snapshot["grad_norm", "fc"]`."""
        quantity, name = key
        for row, value in zip(self.rows, self.column(quantity).tolist(), strict=True):
            if row.name == name:
                return value
        raise KeyError(
            f"no row {name!r}; rows are {', '.join(row.name for row in self.rows)}"
        )

    def column(self, quantity: str) -> Float64[Tensor, " rows"]:
        """The numbers of one quantity, in the order of `rows`.

        Args:
            quantity: The name of the quantity.

        Raises:
            KeyError: If it was not measured.
        """
        if quantity not in self.quantities:
            raise KeyError(
                f"no quantity {quantity!r}; measured: {', '.join(self.quantities)}"
            )
        return self.values[:, self.quantities.index(quantity)]

    def scalars(self, parameters: bool = False) -> dict[str, float]:
        """The available numbers by tag, `<quantity>/<layer>`, ready for a logger.

        Args:
            parameters: Whether to add `<quantity>/<layer>/<parameter>`.
        """
        return {
            f"{quantity}/{row.tag}": value
            for row, values, available in zip(
                self.rows, self.values.tolist(), self.available.tolist(), strict=True
            )
            if parameters or row.kind != "parameter"
            for quantity, value, there in zip(
                self.quantities, values, available, strict=True
            )
            if there
        }
