"""IDX, the file format of MNIST and Fashion-MNIST (LeCun, Cortes and Burges, 1998).

Bytes 0, 1    zero
byte 2        type of the entries; 8 is unsigned byte, the only one read here
byte 3        d, the number of dimensions
d × 4 bytes   the sizes, most significant byte first
the rest      the entries, last dimension fastest
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor


def read_idx(path: Path) -> Tensor:
    """Reads an IDX file of unsigned bytes, gzipped or plain.

    Args:
        path: the file; gzip is recognised by its first bytes, not by the name.

    Returns:
        A uint8 tensor of the shape that the file declares.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the file is damaged, cut short or of another format.

    Example:
        >>> path = getfixture("tmp_path") / "labels"
        >>> path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        11
        >>> read_idx(path)
        tensor([7, 8, 9], dtype=torch.uint8)
    """
    content = _content(path)
    magic, offset = content[:4], 4 + 4 * content[3] if len(content) > 3 else 4
    if magic[:3] != b"\0\0\x08" or magic[3:] == b"\0":
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes, whose first bytes are "
            f"00 00 08 and the number of dimensions; got {magic.hex(' ') or 'nothing'}."
            " Is another file under this name?"
        )
    if len(content) < offset:
        raise _cut_short(path, f"a header of {offset} bytes", len(content))
    shape = struct.unpack(f">{magic[3]}I", content[4:offset])
    if len(content) - offset != math.prod(shape):
        sizes = " × ".join(map(str, shape))
        wanted = f"{sizes} = {math.prod(shape)} bytes after its header"
        raise _cut_short(path, wanted, len(content) - offset)
    # frombuffer wants a writable buffer that is not empty: the header makes it so
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[offset:].view(shape)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} must be a whole gzip file; reading it failed: {error}. "
            "Copy it from its source again."
        ) from None


def _cut_short(path: Path, wanted: str, got: int) -> ValueError:
    return ValueError(
        f"{path} must have {wanted}, got {got}. Copy it from its source again."
    )
