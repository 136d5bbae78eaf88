"""Bugs of real backward passes, each beside the same function done right.

A checker is measured on them: it must flag every `wrong`, say why where a cause is
named, and be silent about every `healthy`. The classes are those of public issues.

To add a bug, write it in the file of its theme and append a `SeededBug` to the tuple
`bugs` at the end of that file. A new file is found by itself, by its `bugs`.
"""

from __future__ import annotations

import importlib
import pkgutil

from ._seeded_bug import KINDS as KINDS, SeededBug as SeededBug

BUGS: tuple[SeededBug, ...] = tuple(
    bug
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__))
    for bug in getattr(importlib.import_module(f"{__name__}.{module}"), "bugs", ())
)
