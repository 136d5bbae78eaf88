"""Watches the runs of a trainer: the only room that imports Lightning or transformers.

Each name is loaded on first use: to watch with one trainer the other is not needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._gradient_monitor import GradientMonitor as GradientMonitor
    from ._hugging_face_monitor import HuggingFaceMonitor as HuggingFaceMonitor

_HOME = {
    "GradientMonitor": "._gradient_monitor",
    "HuggingFaceMonitor": "._hugging_face_monitor",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
