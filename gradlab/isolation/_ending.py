"""How a child process ended, and what its report becomes.

A death inside a backward makes it wrong. A limit proves nothing, and neither does a
death in a forward: `inconclusive`.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from gradlab._report import Finding, Report

_FRAME = re.compile(r'File "(.+)", line (\d+) in (\S+)')
_BACKWARDS = ("backward", "fused_backward", "vjp", "_engine_run_backward")
_NOT_THE_USERS = re.compile(
    r"<frozen |/torch/|/gradlab/(subject|checks|isolation|_gradcheck)|"
    rf"{re.escape(str(Path(os.__file__).parent))}/(?!site-packages/)"
)
_HINTS = {
    "SIGSEGV": "native code uses memory that is not the tensor's: look at the shapes, "
    "strides and dtypes that it assumes, and for recursion without an end",
    "SIGKILL": "most likely the system ran out of memory: memory_gib= stops it earlier",
    "SIGABRT": "an assertion of native code failed; its text is on stderr",
    "SIGFPE": "an integer division by zero in native code: look at empty shapes",
    "exit": "raise an exception instead: this ends a training run without a message",
    "time": "if it is slow and not stuck, raise timeout= or check smaller inputs",
    "memory": "if that is not too much, raise memory_gib= or check smaller inputs",
}


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Attributes:
        kind: The name of a signal, or `exit`, `time` or `memory`.
        says: The same as the predicate of a sentence.
    """

    kind: str
    says: str


def of_status(exitcode: int) -> Ending:
    """The ending behind an exit code.

    Args:
        exitcode: As multiprocessing has it: negative for a signal.
    """
    if exitcode >= 0:
        return Ending("exit", f"ended the process, with exit status {exitcode},")
    name = signal.Signals(-exitcode).name
    meaning = (signal.strsignal(-exitcode) or "").lower()
    return Ending(name, f"killed the process by {name} ({meaning})")


def report_of_the_dead(before: Report, step: str, ending: Ending, log: str) -> Report:
    """The last report of a child, with how it ended.

    Args:
        before: What it had found.
        step: What ran at the end; empty if nothing did.
        ending: How it ended.
        log: Its Python stack, innermost frame first, if it left one.
    """
    frames = _FRAME.findall(log)
    users = [
        frame
        for frame in frames
        if frame[2] != "<module>" and not _NOT_THE_USERS.search(frame[0])
    ]
    file, line, name = (users or [("", "", "")])[0]
    phase = _phase(step, [f[2] for f in frames])
    proof = phase == "backward" and ending.kind not in ("time", "memory")
    during = f" while {step} ran" if step else ""
    finding = Finding(
        "error",
        "isolated",
        f"the {phase or 'code under test'} {ending.says}{during}",
        function=", ".join(before.functions),
        where=f"{Path(file).name}:{line}, in {name}" if file else "",
        hint=_HINTS.get(ending.kind, ""),
    )
    return replace(
        before,
        verdict="wrong" if proof or before.verdict == "wrong" else "inconclusive",
        findings=(finding, *before.findings),
        not_checked={
            **before.not_checked,
            "what comes after": f"the process ended during {step or 'its start'}",
        },
    )


def _phase(step: str, names: list[str]) -> str:
    """`forward` or `backward`: what the innermost frame that tells says."""
    for name in names:
        if name in _BACKWARDS:
            return "backward"
        if name == "forward":
            return "forward"
    return {"forward_runs": "forward", "backward_runs": "backward"}.get(step, "")
