"""Files of what was found in a run."""

from __future__ import annotations

import os
from pathlib import Path

from .._snapshot import Snapshot
from ..pathologies import Finding
from ._outputs import JsonLines
from ._watchdog import Watchdog


class Findings:
    """A sink that keeps the last steps, and writes them when something is found.

    Args:
        folder: Where `findings.jsonl` and `recording.json` go.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        self._lines = JsonLines(folder / "findings.jsonl")
        # It looks for nothing itself.
        self._recorder = Watchdog((), (), recording=folder / "recording.json")

    def __call__(self, snapshot: Snapshot) -> None:
        """Keep one snapshot.

        Args:
            snapshot: What was measured.
        """
        self._recorder(snapshot)

    def finding(self, finding: Finding) -> None:
        """Write one finding, and the steps that led to it.

        Args:
            finding: What was found.
        """
        self._lines(finding)
        self._recorder.findings.append(finding)
        self._recorder.dump(finding.code)

    def crashed(self, error: BaseException) -> None:
        """Write the steps before the end.

        Args:
            error: What ended the run.
        """
        self._recorder.dump(f"{type(error).__name__}: {error}")
