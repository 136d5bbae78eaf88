"""gradlab, the workbench for backward passes: write them, prove them, watch them.

The names below are loaded on first use, so that `gradlab --help` does not wait for
torch and `import gradlab` never imports Lightning or TensorBoard.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import (
        layers as layers,
        optim as optim,
        pathologies as pathologies,
        quantities as quantities,
    )
    from ._function import Function as Function
    from ._gradcheck import gradcheck as gradcheck
    from ._opinfo import (
        ErrorInput as ErrorInput,
        ModuleInput as ModuleInput,
        OpInfo as OpInfo,
        SampleInput as SampleInput,
    )
    from ._report import (
        Finding as Finding,
        GradientMismatchError as GradientMismatchError,
        Report as Report,
    )
    from ._snapshot import Row as Row, Snapshot as Snapshot
    from .monitor import (
        LiveGradcheck as LiveGradcheck,
        Monitor as Monitor,
        exponent_histogram as exponent_histogram,
    )
    from .tensorboard import History as History, read_run as read_run

_HOME = {
    "ErrorInput": "._opinfo",
    "Finding": "._report",
    "Function": "._function",
    "GradientMismatchError": "._report",
    "History": ".tensorboard",
    "LiveGradcheck": ".monitor",
    "ModuleInput": "._opinfo",
    "Monitor": ".monitor",
    "OpInfo": "._opinfo",
    "Report": "._report",
    "Row": "._snapshot",
    "SampleInput": "._opinfo",
    "Snapshot": "._snapshot",
    "exponent_histogram": ".monitor",
    "gradcheck": "._gradcheck",
    "read_run": ".tensorboard",
}
_ROOMS = (
    "callbacks",
    "layers",
    "monitor",
    "optim",
    "pathologies",
    "quantities",
    "tensorboard",
)


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'gradlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", *_ROOMS, *_HOME})
