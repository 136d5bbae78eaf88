"""Asks a question in a forked child, for answers that may never come."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable


def survives(question: Callable[[], bool], seconds: float) -> bool:
    """Whether the answer is yes, in time; a child that dies says no.

    Args:
        question: Runs in the child, with 8 GiB of address space.
        seconds: Then the child is killed.
    """
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 2)
        os._exit(0 if question() else 1)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
