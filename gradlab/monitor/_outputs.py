"""Where findings go: a terminal, a file of JSON lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..pathologies import Finding
from ._flight_recorder import dumps

if TYPE_CHECKING:
    from rich.console import Console


class Terminal:
    """Prints each finding, the symptom in colour.

    Args:
        console: Where to; None is the standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console

    def __call__(self, finding: Finding) -> None:
        """Print one finding.

        Args:
            finding: What was found.
        """
        from rich.console import Console
        from rich.text import Text

        console = self.console or Console(stderr=True, soft_wrap=True)
        text = Text(str(finding))
        text.highlight_regex(r"^step (.|\n(?!    \w+  ))*", "bold yellow")
        text.highlight_regex(r"(?m)^    (in|evidence|likely|try)\b", "dim")
        console.print(text, soft_wrap=True)


class JsonLines:
    """Appends each finding to a file, one JSON object a line, on disk at once.

    Args:
        path: The file; its directory is made if missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __call__(self, finding: Finding) -> None:
        """Append one finding.

        Args:
            finding: What was found.

        Raises:
            OSError: If the file cannot be written to.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(dumps(finding.to_dict()) + "\n")
