"""`Mismatch`: what a check yields; a diagnosis explains it, a finding reports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from gradlab._report import Level, Severity, Verdict

from ._subject import Subject


@dataclass(frozen=True)
class Mismatch:
    """One place where a claim does not hold.

    Attributes:
        code: The check's name.
        severity: How bad it is.
        message: What is not as claimed, in one sentence.
        verdict: What it makes of the whole.
        input: The input it is about.
        output: The output it is about.
        where: Which entries, points or layouts.
        hint: What to do next.
        numbers: Measured figures by name.
        subject: What was probed.
        place: Index into `subject.tensors` of the input.
        actual: The gradient under test, for both cotangents; None for contracts.
        expected: The true one, for both cotangents.
    """

    code: str
    severity: Severity
    message: str
    verdict: Verdict = "fragile"
    input: str = ""
    output: str = ""
    where: str = ""
    hint: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    subject: Subject | None = None
    place: int | None = None
    actual: tuple[Tensor, Tensor] | None = None
    expected: tuple[Tensor, Tensor] | None = None


class Check(Protocol):
    """A claim about a subject, as a frozen dataclass with one `__call__`.

    It yields a mismatch wherever the claim does not hold. It never prints, raises or
    explains; it raises `NotChecked` where it has no say.
    """

    @property
    def level(self) -> Level:
        """The lowest level at which it runs."""
        ...

    def __call__(self, subject: Subject) -> Any:
        """Yields the mismatches."""
        ...


class NotChecked(Exception):  # noqa: N818
    """Raised by a check that cannot have a say; the message is the reason."""


@dataclass(frozen=True)
class Crash:
    """What the code under test raised, and where."""

    error: Exception

    @property
    def of_linear_algebra(self) -> bool:
        """Whether it is about a matrix, singular here say: a refusal, not a fault."""
        linalg_error = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]
        return isinstance(self.error, linalg_error)

    def __str__(self) -> str:
        """Type, message and the user's own line, if it is known."""
        text = str(self.error).strip().splitlines()
        first = text[0] if text else ""
        line = _users_line(self.error)
        return f"{type(self.error).__name__}: {first}" + (f" ({line})" if line else "")


def attempt(run: Callable[[], Any]) -> Any:
    """Runs the code under test; returns what it returns, or a `Crash`.

    Args:
        run: What to run.
    """
    try:
        return run()
    except NotChecked:
        raise
    except Exception as error:
        return Crash(error)


def _users_line(error: Exception) -> str:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append((code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    for filename, line in reversed(frames):
        if "/torch/" not in filename and "/gradlab/subject/" not in filename:
            return f"{filename.rsplit('/', 1)[-1]}:{line}"
    return ""
