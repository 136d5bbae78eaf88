"""What one seeded bug is: a wrong function, its healthy twin and their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradlab._opinfo import Make

KINDS = (
    "value",
    "grad_output",
    "state",
    "determinism",
    "layout",
    "shape",
    "input",
    "dtype",
    "second_order",
    "transform",
    "subset",
    "autocast",
    "raw",
    "memory",
    "isolation",
)


@dataclass(frozen=True)
class SeededBug:
    """A bug as engineers make it, with the same function done right beside it."""

    name: str
    """snake_case, unique, says the bug."""
    kind: str
    """Class of the catalogue, one of KINDS."""
    wrong: Callable[..., Any]
    """Functional of the inputs with the bug."""
    healthy: Callable[..., Any]
    """The same function with the right backward and every contract kept."""
    inputs: Callable[[Make], tuple[Any, ...]]
    """What both are called with; floating inputs come from the given Make."""
    source: str
    """Public issue ("Liger-Kernel#968") or "textbook"."""
    cause: str | None = None
    """The diagnosis that names the exact cause; None when none can be expected."""
    says: str = ""
    """Regular expression that the sentence of that diagnosis should match."""
