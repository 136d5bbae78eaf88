"""Watches a training loop of plain torch."""

from ._monitor import Monitor as Monitor
from ._outputs import JsonLines as JsonLines, Terminal as Terminal
from ._watchdog import Watchdog as Watchdog

__all__ = ["JsonLines", "Monitor", "Terminal", "Watchdog"]
