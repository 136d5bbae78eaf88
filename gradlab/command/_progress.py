"""What a command does right now, in one line on the terminal, and what it found."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from gradlab import Report


def show(report: Report, stdout: TextIO) -> None:
    """Prints a report, in colour on a terminal.

    Args:
        report: The report.
        stdout: Where to.
    """
    if not stdout.isatty():
        print(report, file=stdout)
        return
    from rich.console import Console

    Console(file=stdout).print(report, soft_wrap=True)


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[str], None]]:
    """Yields what shows a step on stderr if that is a terminal; it leaves no trace."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    # No thread, which a fork would not survive, and no stdout but the process's own.
    live = Live(
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        yield lambda step: live.update(Text(f"  {step}", style="dim"), refresh=True)
