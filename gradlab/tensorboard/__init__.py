"""Event files: written while a run is watched, read back for its history."""

from ._reader import History as History, read_run as read_run
from ._writer import EventFileWriter as EventFileWriter

__all__ = ["EventFileWriter", "History", "read_run"]
