"""Event files: written while a run is watched, read back for its history."""

from ._history import History as History
from ._reader import quantities_in as quantities_in, read_run as read_run
from ._writer import EventFileWriter as EventFileWriter

__all__ = ["EventFileWriter", "History", "quantities_in", "read_run"]
