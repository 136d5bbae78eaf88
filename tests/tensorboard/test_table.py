# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from tensorboard.compat.proto import summary_pb2, tensor_pb2
from tensorboard.util.tensor_util import make_ndarray

from gradlab import Row
from gradlab.tensorboard._table import (
    Layout,
    decode,
    describe,
    describe_and_encode,
    encode,
    layout_of,
)

LAYOUT = Layout(
    "grad_norm",
    "applied",
    (Row("total", "total"), Row("fc", "layer"), Row("fc.w", "parameter", (2, 3))),
)


def tensor_of(
    values: NDArray[np.float64], available: NDArray[np.bool_]
) -> tensor_pb2.TensorProto:
    summary = summary_pb2.Summary.FromString(encode("a/b", values, available))
    (value,) = summary.value
    assert value.tag == "a/b"
    return value.tensor


def test_numbers_come_back_and_missing_is_not_nan() -> None:
    values = np.array([1.5, np.nan, -np.nan, np.nan, np.inf, -np.inf, 0.0])
    available = np.array([True, True, True, False, True, True, False])
    tensor = tensor_of(values, available)
    assert len(tensor.tensor_content) == 4 * 7
    back, there = decode(tensor)
    np.testing.assert_array_equal(there, available)
    np.testing.assert_array_equal(back[there], values[there])
    # Whoever does not know of it reads NaN.
    assert np.isnan(make_ndarray(tensor)[~available]).all()
    assert make_ndarray(tensor)[0] == 1.5


@pytest.mark.parametrize("number", [1e-60, 1e-40, 1e39, -1e300])
def test_what_float32_cannot_hold_is_float64(number: float) -> None:
    values = np.array([1.0, number, np.nan, np.nan])
    available = np.array([True, True, True, False])
    back, there = decode(tensor_of(values, available))
    np.testing.assert_array_equal(back[:3], values[:3])
    np.testing.assert_array_equal(there, available)


def test_the_numbers_handed_in_stay_as_they_are() -> None:
    values = np.array([1e-60, np.nan])
    tensor_of(values, np.array([False, True]))
    np.testing.assert_array_equal(values, [1e-60, np.nan])


@pytest.mark.parametrize("rows", [0, 1, 40, 70_000])
def test_described_or_not_the_tensor_is_the_same(rows: int) -> None:
    values = np.arange(1.0, rows + 1)
    available = np.ones(rows, dtype=bool)
    first = summary_pb2.Summary.FromString(
        describe_and_encode("a/b", LAYOUT, values, available)
    ).value[0]
    assert layout_of(first.metadata) == LAYOUT
    assert first.tensor == tensor_of(values, available)
    np.testing.assert_array_equal(decode(first.tensor)[0], values)


def test_the_metadata_say_what_the_rows_are() -> None:
    metadata = describe(LAYOUT)
    assert metadata.data_class == summary_pb2.DATA_CLASS_TENSOR
    assert metadata.summary_description == "Gradient stage: applied"
    back = layout_of(metadata)
    assert back == LAYOUT
    assert [row.shape for row in back.rows] == [None, None, (2, 3)]


def test_what_another_plugin_wrote_is_no_table() -> None:
    metadata = summary_pb2.SummaryMetadata(plugin_data={"plugin_name": "scalars"})
    assert layout_of(metadata) is None


def test_a_later_format_is_refused() -> None:
    metadata = describe(LAYOUT)
    content = {**json.loads(metadata.plugin_data.content), "version": 2}
    metadata.plugin_data.content = json.dumps(content).encode()
    with pytest.raises(ValueError, match=r"got version 2, known is 1; upgrade"):
        layout_of(metadata)
