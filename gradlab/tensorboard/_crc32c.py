"""The masked CRC-32C of event files.

By a library in C: TensorBoard's own takes 1 ms for the scalars of 150 layers.
"""

from __future__ import annotations

import google_crc32c


def masked(data: bytes) -> int:
    """The checksum as event files hold it.

    Args:
        data: The message.
    """
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
