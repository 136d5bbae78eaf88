"""A table in an event file: all rows of a quantity at a step as one tensor.

The values lie under the tag `gradlab/<quantity>`; the metadata of the tag's first event
say what the rows are, so that a reader needs nothing else. TensorBoard remembers the
first metadata of a tag only, so other rows are another tag of the same quantity.
"""

# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from functools import lru_cache
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
_TINY, _MAX = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


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
    tag: str, values: NDArray[np.float64], available: NDArray[np.bool_]
) -> bytes:
    """The numbers of a step under a tag that is described, as the bytes of a Summary.

    They are float32, or float64 if float32 cannot hold one of them.

    Args:
        tag: The tag.
        values: The numbers, `[row]`.
        available: Where there is one, `[row]`.
    """
    size, content = _content(values, available)
    return _before(tag, size, len(values)) + content


def describe_and_encode(
    tag: str,
    layout: Layout,
    values: NDArray[np.float64],
    available: NDArray[np.bool_],
) -> bytes:
    """The numbers of the first step under a tag, and what they are.

    Args:
        tag: The tag.
        layout: What the numbers under it are.
        values: The numbers, `[row]`.
        available: Where there is one, `[row]`.
    """
    summary = _summary(tag, *_content(values, available))
    summary.value[0].metadata.CopyFrom(describe(layout))
    return summary.SerializeToString()


def _content(
    values: NDArray[np.float64], available: NDArray[np.bool_]
) -> tuple[int, bytes]:
    """How many bytes a number has, and the bytes."""
    sizes = np.abs(values)
    # Mostly all are there, normal, and float32 holds them.
    if sizes.size and sizes.min() >= _TINY and sizes.max() <= _MAX and available.all():
        return 4, values.astype("<f4").tobytes()
    sizes = sizes[np.isfinite(values) & (values != 0)]
    fits = not sizes.size or (sizes.min() >= _TINY and sizes.max() <= _MAX)
    size = 4 if fits else 8
    numbers = values.astype(f"<f{size}")
    bits = numbers.view(f"<u{size}")
    bits[np.isnan(values)] = _NAN[size]
    bits[~available] = _NONE[size]
    return size, numbers.tobytes()


def _summary(tag: str, size: int, content: bytes) -> summary_pb2.Summary:
    kind = {number: kind for kind, number in _TYPES.items()}[size]
    tensor = tensor_pb2.TensorProto(dtype=kind, tensor_content=content)
    tensor.tensor_shape.dim.add(size=len(content) // size)
    summary = summary_pb2.Summary()
    summary.value.add(tag=tag, tensor=tensor)
    return summary


@lru_cache(maxsize=1 << 12)
def _before(tag: str, size: int, rows: int) -> bytes:
    """What stands before the numbers: they are the last field of the last one."""
    whole = _summary(tag, size, bytes(size * rows)).SerializeToString()
    return whole[: len(whole) - size * rows]


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
