"""Text for TensorBoard's tab of that name."""

# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import textwrap

from tensorboard.compat.proto import summary_pb2, tensor_pb2, types_pb2


def encode(tag: str, text: str) -> bytes:
    """Plain text as the bytes of a Summary.

    Args:
        tag: What TensorBoard files it under.
        text: Its lines; the tab reads Markdown, which keeps an indented block as it is.
    """
    block = textwrap.indent(text, "    ").encode()
    summary = summary_pb2.Summary()
    entry = summary.value.add(
        tag=tag,
        tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[block]),
    )
    entry.tensor.tensor_shape.dim.add(size=1)
    entry.metadata.plugin_data.plugin_name = "text"
    entry.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
    return summary.SerializeToString()
