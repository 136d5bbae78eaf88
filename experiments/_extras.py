"""What a command says where the packages of the experiments are not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extras() -> Iterator[None]:
    """Ends the process with one message when an import within finds no module.

    Raises:
        SystemExit: With status 2.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        print(
            f"error: the experiments need more than gradlab, got no {missing.name}: "
            "pip install '.[experiments]', or run make demo",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
