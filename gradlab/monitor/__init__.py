"""Watches a training loop of plain torch."""

from ._action import Action as Action, Audit as Audit, Run as Run
from ._actions import (
    SaveCheckpoint as SaveCheckpoint,
    SkipStep as SkipStep,
    Stop as Stop,
    Warn as Warn,
)
from ._exponent_histogram import (
    ExponentHistogram as ExponentHistogram,
    exponent_histogram as exponent_histogram,
)
from ._findings import Findings as Findings
from ._live_gradcheck import LiveGradcheck as LiveGradcheck
from ._monitor import Monitor as Monitor
from ._non_finite import (
    Culprit as Culprit,
    NonFiniteTrace as NonFiniteTrace,
    find_non_finite as find_non_finite,
)
from ._outputs import JsonLines as JsonLines, Terminal as Terminal
from ._watchdog import Watchdog as Watchdog

__all__ = [
    "Action",
    "Audit",
    "Culprit",
    "Findings",
    "JsonLines",
    "LiveGradcheck",
    "Monitor",
    "NonFiniteTrace",
    "Run",
    "SaveCheckpoint",
    "SkipStep",
    "Stop",
    "Terminal",
    "Warn",
    "Watchdog",
    "find_non_finite",
]
