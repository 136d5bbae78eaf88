import dataclasses
import math
from typing import Any

import pytest
import torch

from gradlab import Row, Snapshot

ROWS = (
    Row("total", "total"),
    Row("encoder.0", "layer"),
    Row("encoder.0.weight", "parameter"),
    Row("scale", "parameter"),
)


def snapshot(**changes: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "step": 3,
        "stage": "clipped",
        "rows": ROWS,
        "quantities": ("grad_norm", "grad_rms"),
        "values": torch.arange(8, dtype=torch.float64).reshape(4, 2),
        "available": torch.ones(4, 2, dtype=torch.bool),
    }
    return Snapshot(**(fields | changes))


def test_a_number_is_found_by_quantity_and_row() -> None:
    assert snapshot()["grad_rms", "encoder.0"] == 3.0


def test_a_column_is_in_the_order_of_the_rows() -> None:
    assert snapshot().column("grad_norm").tolist() == [0.0, 2.0, 4.0, 6.0]


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"no row 'decoder'; rows are total, encoder\.0"):
        snapshot()["grad_norm", "decoder"]
    with pytest.raises(KeyError, match="no quantity 'cosine'; measured: grad_norm"):
        snapshot().column("cosine")


def test_tags_file_a_parameter_below_its_layer() -> None:
    assert [row.tag for row in ROWS] == [
        "total",
        "encoder.0",
        "encoder.0/weight",
        "root/scale",
    ]


def test_scalars_leave_parameters_out_unless_asked() -> None:
    assert list(snapshot().scalars()) == [
        "grad_norm/total",
        "grad_rms/total",
        "grad_norm/encoder.0",
        "grad_rms/encoder.0",
    ]
    assert snapshot().scalars(parameters=True)["grad_rms/root/scale"] == 7.0


def test_what_is_unavailable_is_no_scalar_but_nan_is_one() -> None:
    values = torch.full((4, 2), math.nan, dtype=torch.float64)
    available = torch.zeros(4, 2, dtype=torch.bool)
    available[1, 0] = True
    scalars = snapshot(values=values, available=available).scalars(parameters=True)
    assert list(scalars) == ["grad_norm/encoder.0"]
    assert math.isnan(scalars["grad_norm/encoder.0"])


def test_a_snapshot_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot().step = 4  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -1}, "counted from 0, got step=-1"),
        ({"stage": "after"}, "one of .* got stage='after'"),
        ({"rows": ROWS[:3]}, r"values must be torch.float64 .* = \[3, 2\] .* \[4, 2\]"),
        ({"values": torch.zeros(4, 2)}, "values must be torch.float64"),
        ({"available": torch.ones(4, 2)}, "available must be torch.bool"),
        ({"rows": (*ROWS[:3], Row("total", "layer"))}, "rows are unique, .*: total"),
        ({"quantities": ("a", "a")}, "quantities are unique, got twice: a"),
    ],
)
def test_a_malformed_snapshot_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        snapshot(**changes)
