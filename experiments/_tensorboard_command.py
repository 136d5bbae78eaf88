"""The command that opens TensorBoard on a run, ready to paste into a shell."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def tensorboard_command(log_dir: Path) -> str:
    """Returns the shell command that shows the runs below `log_dir`.

    It runs in the working directory and calls the TensorBoard of this Python, whether
    or not its virtual environment is activated.

    Args:
        log_dir: a directory of event files, or one above it.

    Example:
        >>> tensorboard_command(Path("two words")).endswith("--logdir 'two words'")
        True
    """
    script = Path(sys.executable).with_name("tensorboard")
    program = (
        [_seen_from_here(script)]
        if script.exists()
        else [_seen_from_here(Path(sys.executable)), "-m", "tensorboard.main"]
    )
    return shlex.join([*program, "--logdir", _seen_from_here(log_dir)])


def _seen_from_here(path: Path) -> str:
    here = Path.cwd()
    whole = Path(os.path.abspath(path))
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)
