"""Makes the log directory of a run, or says why it cannot be one."""

from __future__ import annotations

import tempfile
from pathlib import Path


def claim_log_dir(log_dir: Path) -> None:
    """Makes `log_dir`, unless it exists already.

    Args:
        log_dir: the directory of one run, to be written by nobody else.

    Raises:
        OSError: When it cannot be made or written to. Asking is not enough: the
            superuser, a read-only mount and a full disk each answer otherwise.
        ValueError: When it is not empty.
    """
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=log_dir):
            pass
    except OSError as error:
        raise OSError(
            f"the log directory must be writable; {log_dir} is not: {error.strerror}. "
            "Choose another with --trainer.default_root_dir=DIR, in a study with "
            "--out=DIR, or with --trainer.logger.save_dir=DIR where a config names its "
            "logger."
        ) from None
    if any(log_dir.iterdir()):
        raise ValueError(
            "the log directory must be empty, for TensorBoard draws two runs in one "
            f"directory as one curve; {log_dir} holds a run already. Remove it, or "
            "leave out trainer.logger.version for the next free number."
        )
