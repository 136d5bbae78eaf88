"""A table in an event file: all rows of a quantity at a step as one tensor.

The values lie under the tag `gradlab/<quantity>`; the metadata of the tag's first event
say what the rows are, so that a reader needs nothing else. TensorBoard remembers the
first metadata of a tag only, so other rows are another tag of the same quantity.
"""

# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto import summary_pb2, tensor_pb2, types_pb2

from .._snapshot import Row, Stage
from ._stage import STAGE

PLUGIN = "gradlab"
VERSION = 1

Cells: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Values, and where there is one, both `[row]`."""

# "Not available" is a NaN that no arithmetic makes: the payload says so, as in R. It
# costs no byte, and whoever does not know it reads NaN.
_NONE = {4: 0x7FC00000 | 1954, 8: 0x7FF8000000000000 | 1954}
_NAN = {4: 0x7FC00000, 8: 0x7FF8000000000000}
_TYPES = {types_pb2.DT_FLOAT: 4, types_pb2.DT_DOUBLE: 8}
_FLOAT32 = np.finfo(np.float32)


class Layout(NamedTuple):
    """What the numbers under a tag are.

    Attributes:
        quantity: The name of the quantity.
        stage: Where the gradient was read.
        rows: What each number belongs to.
    """

    quantity: str
    stage: Stage
    rows: tuple[Row, ...]


def describe(layout: Layout) -> summary_pb2.SummaryMetadata:
    """The metadata of a tag.

    Args:
        layout: What the numbers under it are.
    """
    content = {
        "version": VERSION,
        "quantity": layout.quantity,
        "stage": layout.stage,
        "names": [row.name for row in layout.rows],
        "kinds": [row.kind for row in layout.rows],
        "shapes": [row.shape for row in layout.rows],
    }
    return summary_pb2.SummaryMetadata(
        summary_description=f"{STAGE}{layout.stage}",
        plugin_data={
            "plugin_name": PLUGIN,
            "content": json.dumps(content, separators=(",", ":")).encode(),
        },
        # Without it TensorBoard does not show the tag to any plugin.
        data_class=summary_pb2.DATA_CLASS_TENSOR,
    )


def layout_of(metadata: summary_pb2.SummaryMetadata) -> Layout | None:
    """What the numbers under a tag are, None if it is no table of gradlab's.

    Args:
        metadata: The metadata of the tag.

    Raises:
        ValueError: If a later gradlab wrote it in a way that this one does not know.
    """
    if metadata.plugin_data.plugin_name != PLUGIN:
        return None
    content = json.loads(metadata.plugin_data.content)
    if content["version"] != VERSION:
        raise ValueError(
            f"a table is read by the gradlab that knows its version, got version "
            f"{content['version']}, known is {VERSION}; upgrade torch-gradlab"
        )
    columns = zip(content["names"], content["kinds"], content["shapes"], strict=True)
    rows = tuple(
        Row(name, kind, None if shape is None else tuple(shape))
        for name, kind, shape in columns
    )
    return Layout(content["quantity"], content["stage"], rows)


def encode(
    values: NDArray[np.float64], available: NDArray[np.bool_]
) -> tensor_pb2.TensorProto:
    """The tensor of a step: float32, or float64 if float32 cannot hold a number.

    Args:
        values: The numbers, `[row]`.
        available: Where there is one, `[row]`.
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    fits = not sizes.size or (
        _FLOAT32.tiny <= sizes.min() and sizes.max() <= _FLOAT32.max
    )
    size, kind = (4, types_pb2.DT_FLOAT) if fits else (8, types_pb2.DT_DOUBLE)
    numbers = values.astype(f"<f{size}")
    bits = numbers.view(f"<u{size}")
    bits[np.isnan(values)] = _NAN[size]
    bits[~available] = _NONE[size]
    tensor = tensor_pb2.TensorProto(dtype=kind, tensor_content=numbers.tobytes())
    tensor.tensor_shape.dim.add(size=len(numbers))
    return tensor


def decode(tensor: tensor_pb2.TensorProto) -> Cells:
    """The numbers of a step, and where there is one.

    Args:
        tensor: What `encode` made.
    """
    size = _TYPES[tensor.dtype]
    bits = np.frombuffer(tensor.tensor_content, dtype=f"<u{size}")
    available = bits != _NONE[size]
    values = bits.view(f"<f{size}").astype(np.float64)
    return values, cast(NDArray[np.bool_], available)
