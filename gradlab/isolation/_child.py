"""What the child process of an isolated check does: check, and keep its parent posted.

It writes its Python stack, innermost frame first, to a log file: when a signal kills
it, when the parent asks with `STACK_SIGNAL`, and when the code under test exits.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

import torch

from gradlab._report import Report

Check = Callable[..., Report]
"""Called with `progress=`, of a step's name, and `so_far=`, of a Report."""

STACK_SIGNAL: int | None = getattr(signal, "SIGUSR1", None)


@dataclass(frozen=True)
class Pickled:
    """A check that is unpickled in the child, after all that it needs is imported."""

    data: bytes

    def __call__(self, **options: Any) -> Report:
        return pickle.loads(self.data)(**options)


def work(
    check: Check, sender: Connection, log: str, timeout: float, forked: bool
) -> None:
    """Runs the check and sends what comes of it, as JSON.

    Args:
        check: What to run.
        sender: The end of the pipe to write to.
        log: The file to write stacks to.
        timeout: After how long the parent will stop it.
        forked: Whether the memory is a copy of the parent's.
    """
    if forked:  # OpenMP's threads were not forked with it, and would be waited for
        torch.set_num_threads(1)
    _outlive_nobody(timeout)
    with suppress(OSError):  # what native code prints is no part of a report
        os.dup2(2, 1)
    stream = Path(log).open("w")  # noqa: SIM115
    _write_stacks_to(stream)

    known = set(sys.modules)

    def send(kind: str, content: Any) -> None:
        sender.send_bytes(json.dumps([kind, content], default=dict).encode())

    try:
        report = check(
            progress=lambda step: send("step", step),
            so_far=lambda report: send("so_far", report.to_dict()),
        )
        message: tuple[str, Any] = ("report", report.to_dict())
    except Exception as error:
        message = ("raised", [type(error).__name__, str(error)])
    except BaseException as ending:  # SystemExit, from inside the code under test
        frames = traceback.extract_tb(ending.__traceback__)
        for frame in reversed(frames):
            stream.write(f'File "{frame.filename}", line {frame.lineno} in ')
            stream.write(f"{frame.name}\n")
        stream.flush()
        raise
    send("imported", [m for m in sys.modules if m[:6] == "torch." and m not in known])
    sys.stdout.flush()
    sys.stderr.flush()
    send(*message)


def _outlive_nobody(timeout: float) -> None:
    """Dies with its parent at the latest, even if the parent is killed; goes first."""
    if hasattr(os, "setsid"):  # a group of its own, which Ctrl-C does not reach
        os.setsid()
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(min(timeout, 1e6)) + 5)
    with suppress(OSError):  # if memory runs out, the kernel must not pick the parent
        Path("/proc/self/oom_score_adj").write_text("1000")


def _write_stacks_to(stream: TextIO) -> None:
    # Anew: some library may have put its own handlers over the parent's.
    faulthandler.disable()
    faulthandler.enable(stream, all_threads=False)
    if STACK_SIGNAL is not None:
        faulthandler.register(STACK_SIGNAL, stream, all_threads=False)
    leave = os._exit

    def leave_with_a_stack(status: int) -> None:
        faulthandler.dump_traceback(stream, all_threads=False)
        leave(status)

    os._exit = leave_with_a_stack
