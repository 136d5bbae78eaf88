"""Records of an event file: appended whole or not at all, read up to a torn one.

A record is, little-endian,

    length u64 · masked CRC-32C of these 8 bytes u32 · data · masked CRC-32C of data u32
"""

# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
import socket
import struct
import time
import weakref
from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from pathlib import Path

from tensorboard.compat.proto import event_pb2

from ._crc32c import masked

_serial = count()


class RecordFile:
    """A new event file, written record by record.

    A record is handed to the operating system as it comes, without a thread and without
    a buffer of ours: it survives the death of the process, `kill -9` included, and an
    error is raised where it belongs. Of a record for which there is no room nothing
    stays, so that the file can be read, and go on when there is room again.

    Args:
        folder: An existing directory.

    Raises:
        OSError: If a file cannot be made there.
    """

    def __init__(self, folder: Path) -> None:
        now = time.time()
        self.path = folder / (
            f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}."
            f"{os.getpid()}.{next(_serial):06d}"
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._file = os.open(self.path, flags, 0o666)
        # Also when nobody calls close().
        self._close = weakref.finalize(self, os.close, self._file)
        # Some file systems do not count links.
        self._counts_links = os.fstat(self._file).st_nlink > 0
        self._end = 0
        version = event_pb2.Event(wall_time=now, file_version="brain.Event:2")
        # It goes with the first record: a disk may be full now and not later.
        self._head = _framed(version.SerializeToString())

    def append(self, data: bytes) -> None:
        """Append one record.

        Args:
            data: What it holds.

        Raises:
            OSError: If there is no room for it, or the file was deleted.
            ValueError: If the file is closed.
        """
        file = self._open()
        if self._counts_links and os.fstat(file).st_nlink == 0:
            raise FileNotFoundError(
                f"an event file stays where it is while it is written, got "
                f"{os.fspath(self.path)!r} deleted"
            )
        record = memoryview(self._head + _framed(data))
        end, size = self._end, len(record)
        try:
            while record:
                record = record[os.write(file, record) :]
        except BaseException:
            # A torn record would hide all that follow it: of Ctrl-C as of a full disk.
            os.ftruncate(file, end)
            os.lseek(file, end, os.SEEK_SET)
            raise
        self._end = end + size
        self._head = b""

    def flush(self) -> None:
        """Wait until the disk has everything, so that it survives the machine too.

        Raises:
            OSError: If the disk fails.
            ValueError: If the file is closed.
        """
        os.fsync(self._open())

    def close(self) -> None:
        """Close the file; safe to call twice.

        Raises:
            OSError: If the disk fails.
        """
        self._close()

    def _open(self) -> int:
        if not self._close.alive:
            raise ValueError(
                f"an event file is written until it is closed, {os.fspath(self.path)!r}"
                " is; make another writer"
            )
        return self._file


def records(path: Path) -> Iterator[bytes]:
    """What the records of an event file hold, up to the end or the first torn one.

    Args:
        path: The event file.

    Yields:
        The data of each record.
    """
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            length, crc = struct.unpack("<QI", head)
            if crc != _header_crc(length):
                return
            data = file.read(length)
            tail = file.read(4)
            if len(tail) < 4 or struct.unpack("<I", tail)[0] != masked(data):
                return
            yield data


# Most records of a run are as long as the one before.
@lru_cache(maxsize=256)
def _header_crc(length: int) -> int:
    return masked(struct.pack("<Q", length))


def _framed(data: bytes) -> bytes:
    head = struct.pack("<QI", len(data), _header_crc(len(data)))
    return head + data + struct.pack("<I", masked(data))
