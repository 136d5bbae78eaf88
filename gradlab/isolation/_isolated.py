"""Runs a gradient check in a child process: what kills the child becomes a finding.

A backward in native code may read past its tensors, recurse until memory is gone, or
never return. The child is forked, so that any closure can be checked; it says each step
before it runs, and what was found so far. Its last traceback says what it died in.
"""

from __future__ import annotations

import builtins
import importlib
import json
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import torch

from gradlab._report import Level, Report

from ._child import STACK_SIGNAL, Check, Pickled, work
from ._ending import Ending, of_status, report_of_the_dead

_imported: list[str] = []
"""What of torch children had to import, in some seconds: the next finds it there."""

_POLL = 0.02  # seconds; a child that only allocates takes some 50 MB in that time


def isolated(
    check: Check,
    title: str,
    level: Level,
    timeout: float = 60.0,
    memory_gib: float | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Report:
    """Runs a check in a process of its own.

    Args:
        check: What to run; it must pickle where it cannot be forked.
        title: What is checked, for the report of a child that never sent one.
        level: How much is checked, likewise.
        timeout: Seconds after which the child is stopped.
        memory_gib: How much memory it may take beyond what is in use now, in GiB.
        progress: Called with the name of each step before it runs.

    Returns:
        The child's report; if it did not live to send one, what it had found until
        then and an `isolated` error that says what happened.

    Raises:
        ValueError: When a limit is not positive, or `check` can be neither forked nor
            pickled. What the check itself raises is raised again.
    """
    for name, limit in (("timeout", timeout), ("memory_gib", memory_gib)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} must be positive, got {limit}")
    if memory_gib is not None and not Path("/proc/self/statm").exists():
        raise ValueError("memory_gib needs /proc, as on Linux: leave it out here")
    handle, log = tempfile.mkstemp(prefix="gradlab-", suffix=".log")
    os.close(handle)
    try:
        child = _start(check, log, timeout)
        try:
            ending = _follow(child, timeout, memory_gib, progress)
            if isinstance(ending, Report):
                return ending
            _ask_for_its_stack(child.process)
        finally:
            _kill(child.process)
        before = child.report or Report("correct", title, level)
        return report_of_the_dead(before, child.step, ending, Path(log).read_text())
    finally:
        Path(log).unlink(missing_ok=True)


@dataclass
class _Child:
    process: Any
    receiver: Connection
    step: str = ""
    report: Report | None = None


def _start(check: Check, log: str, timeout: float) -> _Child:
    accelerator = torch.cuda.is_initialized() or torch.backends.mps.is_available()
    forks = hasattr(os, "fork") and not accelerator
    if forks:
        _import_for_the_next()
    else:
        check = _pickled(check, "CUDA is in use" if accelerator else "nothing can fork")
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(check, sender, log, timeout, forks))
    with warnings.catch_warnings():  # Python 3.12 warns of a fork beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    return _Child(process, receiver)


def _import_for_the_next() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while _imported:
            with suppress(Exception):
                importlib.import_module(_imported.pop(0))


def _pickled(check: Check, why: str) -> Check:
    try:
        return Pickled(pickle.dumps(check))
    except Exception as error:
        raise ValueError(
            f"isolation must start a new process, since {why} here, and what is to be "
            f"checked cannot be pickled ({error}): define it at the top of a module, "
            "or check it without isolation"
        ) from None


def _follow(
    child: _Child,
    timeout: float,
    memory_gib: float | None,
    progress: Callable[[str], None],
) -> Report | Ending:
    """Reads what the child sends until it is done, dead or beyond a limit."""
    deadline = time.monotonic() + timeout
    start = _memory(os.getpid()) if memory_gib is not None else 0
    while True:
        ready = wait([child.receiver, child.process.sentinel], _POLL)
        try:
            while child.receiver.poll():
                kind, content = json.loads(child.receiver.recv_bytes())
                if kind == "step":
                    child.step = content
                    progress(content)
                elif kind == "so_far":
                    child.report = Report.from_dict(content)
                elif kind == "imported":
                    _imported.extend(content)
                elif kind == "report":
                    return Report.from_dict(content)
                else:
                    _raise(*content)
        except EOFError:
            ready = [child.process.sentinel]
        if child.process.sentinel in ready:
            child.process.join()
            return of_status(child.process.exitcode)
        if time.monotonic() > deadline:
            return Ending("time", f"did not finish within {timeout:g} s")
        if memory_gib is not None:
            grown = (_memory(child.process.pid) - start) / 2**30
            if grown > memory_gib:
                return Ending("memory", f"took more than {memory_gib:g} GiB of memory")


def _ask_for_its_stack(process: Any) -> None:
    if STACK_SIGNAL is not None and process.is_alive():
        os.kill(process.pid, STACK_SIGNAL)
        process.join(0.1)


def _kill(process: Any) -> None:
    """Ends the child and what it started."""
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (AttributeError, OSError):  # no groups here, or it has not made its own
            process.kill()
    process.join()


def _raise(name: str, text: str) -> NoReturn:
    try:
        error = getattr(builtins, name, RuntimeError)(text)
    except TypeError:  # UnicodeDecodeError and the like take more than a text
        error = RuntimeError(f"{name}: {text}")
    raise error


def _memory(pid: int) -> int:
    """Bytes that no file backs; a forked child begins with those of its parent."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:  # it has just died
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
