"""One run of the checks over one subject: what runs when, and who is to blame.

Value checks that fail on a composite (a Module, a function around a Function) run again
on each Function inside; what a composite can hide from its Functions, such as other
layouts of grad_output, is checked on them as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._report import Finding, Level, Verdict
from .checks import (
    AnyGradOutputLayout,
    Deterministic,
    LeavesArgumentsAlone,
    LinearInGradOutput,
    MatchesFiniteDifferences,
    MatchesReference,
    Repeatable,
    checks,
)
from .diagnoses import diagnoses
from .subject import (
    Check,
    Crash,
    Mismatch,
    NotChecked,
    Subject,
    attempt,
    calls_recorded,
    functions,
    is_bare,
    subject_of,
    truth,
)

LEVELS: tuple[Level, ...] = ("value", "contract", "full")
_VALUE: tuple[Check, ...] = (MatchesReference(), MatchesFiniteDifferences())
_INNER: tuple[Check, ...] = (
    LinearInGradOutput(),
    LeavesArgumentsAlone(),
    AnyGradOutputLayout(),
    Repeatable(),
    Deterministic(),
)
"""What grad_outputs and second runs a Function meets depends on what is around it."""
_WORST: tuple[Verdict, ...] = (
    "wrong",
    "inconclusive",
    "surrogate",
    "approximate",
    "fragile",
    "correct",
)
_SEVERITIES = ("error", "warning", "note")

Progress = Callable[[str], None]
Tell = Callable[[Sequence[Finding]], None]


class Run:
    """One run of the checks over one subject.

    Attributes:
        verdict: The outcome so far.
        reference: What the gradient was held against.
        not_checked: Check to the reason why it did not run.
    """

    def __init__(
        self,
        subject: Subject,
        level: Level,
        progress: Progress,
        compile: bool = False,
        tell: Tell | None = None,
    ) -> None:
        self.verdict: Verdict = "correct"
        self.reference = ""
        self.not_checked: dict[str, str] = {}
        self._subject, self._level, self._compile = subject, level, compile
        self._progress, self._tell = progress, tell or (lambda findings: None)
        self._found: list[Finding] = []
        self._only = ""
        self._off: set[str] = set()

    def findings(self) -> list[Finding]:
        """Runs every check of the level; the worst finding comes first."""
        self._progress("backward_runs")
        self._tell(())
        crash = attempt(lambda: self._subject.gradients)
        if isinstance(crash, Crash):
            self.verdict = "wrong"
            names = ", ".join(c.__name__ for c in functions(self._subject))
            said = f"the backward raises {crash}"
            return [Finding("error", "backward_runs", said, function=names)]
        if not any(x.numel() for x in self._subject.tensors):
            self.not_checked["matches_reference"] = "every input is empty"
            self._lower("inconclusive")
        classes = functions(self._subject)
        self._only = classes[0].__name__ if len(classes) == 1 else ""
        for check in checks:
            if self._asked_for(check):
                found = list(self._run(check, self._subject))
                if check in _VALUE:
                    self._blame(found)
                elif check.level == "full":
                    self._blame_points(found)
                else:
                    self._add(found, self._only)
        if LEVELS.index(self._level) > 0:
            self._look_inside()
        self.reference = truth(self._subject).kind
        return sorted(self._found, key=lambda f: _SEVERITIES.index(f.severity))

    def _asked_for(self, check: Check) -> bool:
        if getattr(check, "opt_in", False) and not self._compile:
            return False
        return LEVELS.index(check.level) <= LEVELS.index(self._level)

    def _run(self, check: Check, subject: Subject) -> Iterator[Mismatch]:
        code = code_of(check)
        self._progress(code)
        try:
            yield from check(subject)
        except NotChecked as reason:
            self._leave_out(check, str(reason))
        except Exception as error:
            # Checks expect the code under test to raise where that is a fault; here it
            # refuses a point of our making, such as a matrix no longer definite.
            self._leave_out(check, f"it did not come to an end: {Crash(error)}")

    def _leave_out(self, check: Check, reason: str) -> None:
        self.not_checked[code_of(check)] = reason
        if check in _VALUE:
            self._lower("inconclusive")

    def _lower(self, verdict: Verdict) -> None:
        if _WORST.index(verdict) < _WORST.index(self.verdict):
            self.verdict = verdict

    def _blame(self, found: list[Mismatch]) -> None:
        """Adds what the Functions inside have done, or the mismatches themselves."""
        wrong = {m.input for m in found if m.verdict != "correct"}
        if not wrong:
            self._add(found)
            return
        self._off |= wrong
        if is_bare(self._subject):
            self._add(found, functions(self._subject)[0].__name__)
            return
        culprits = self._culprits(self._subject)
        for mismatch, function in culprits:
            self._add([mismatch], function)
        if not culprits:
            self._add(found)

    def _culprits(self, subject: Subject) -> list[tuple[Mismatch, str]]:
        """What is wrong with the value of each Function inside, and its name."""
        return [
            (mismatch, inner.title)
            for inner in self._inside(subject, every=True)
            for check in _VALUE
            for mismatch in self._run(check, inner)
        ]

    def _blame_points(self, found: list[Mismatch]) -> None:
        """The same at other points, where each mismatch has a subject of its own."""
        said: set[tuple[str, str]] = set()
        for mismatch in found:
            point = mismatch.subject
            if mismatch.actual is None or point is None or is_bare(self._subject):
                self._add([mismatch], self._only)
                continue
            inside = attempt(lambda point=point: self._culprits(point))
            culprits = [
                (dataclasses.replace(m, code=mismatch.code, where=mismatch.where), name)
                for m, name in ([] if isinstance(inside, Crash) else inside)
                if m.verdict in ("wrong", "approximate")
            ]
            for culprit, name in culprits:
                if (name, culprit.input) not in said:
                    said.add((name, culprit.input))
                    self._add([culprit], name)
            if not culprits:
                self._add([mismatch], self._only)

    def _look_inside(self) -> None:
        """Checks on each Function what the function around it hides."""
        if not functions(self._subject) or is_bare(self._subject):
            return
        for inner in self._inside(self._subject, every=False):
            for check in _INNER:
                known = any(f.code == code_of(check) for f in self._found)
                if not known and not isinstance(
                    attempt(lambda inner=inner: inner.gradients), Crash
                ):
                    self._add(list(self._run(check, inner)), inner.title)

    @staticmethod
    def _inside(subject: Subject, every: bool) -> Iterator[Subject]:
        """The Functions inside as subjects: every call, or one of each class."""
        classes = functions(subject)
        with calls_recorded(classes) as calls:
            subject.run(subject.fresh())
        seen: set[Any] = set()
        for call in calls:
            inner = None if call.function in seen else subject_of(call, subject)
            if inner is not None:
                seen |= set() if every else {call.function}
                yield inner

    def _add(self, mismatches: Sequence[Mismatch], function: str = "") -> None:
        for mismatch in mismatches:
            if self._known(mismatch, function):
                continue
            self._lower(mismatch.verdict)
            self._found.append(
                Finding(
                    mismatch.severity,
                    mismatch.code,
                    mismatch.message,
                    mismatch.input,
                    mismatch.output,
                    function,
                    mismatch.where,
                    _cause(mismatch),
                    mismatch.hint,
                    mismatch.numbers,
                )
            )
        self._tell(self._found)

    def _known(self, new: Mismatch, function: str) -> bool:
        """Whether it has been said: of another call, or of the user's own point."""
        return any(
            old.input == new.input
            and old.function in (function, "")
            and (old.code == new.code or new.code == "holds_at_other_points")
            and old.message[:40] == new.message[:40]
            for old in self._found
        ) or (new.code == "holds_at_other_points" and new.input in self._off)


def _cause(mismatch: Mismatch) -> str:
    """What the first diagnosis that is sure says; one that fails says nothing."""
    for diagnosis in diagnoses:
        said = attempt(lambda diagnosis=diagnosis: diagnosis(mismatch))
        if isinstance(said, str) and said:
            return said
    return ""


def code_of(check: Check) -> str:
    """The name of a check in a report: `MatchesReference` is `matches_reference`.

    Args:
        check: The check.
    """
    name = type(check).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
