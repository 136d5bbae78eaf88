"""`gradcheck`: is a backward right, where is it wrong, and why.

OpInfo or callable → Subject → checks → mismatches → diagnoses → Report. This file only
decides what runs when; the mathematics is in `subject`, `checks` and `diagnoses`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ._report import Finding, Level, Report, Verdict
from .checks import MatchesFiniteDifferences, MatchesReference, checks
from .diagnoses import diagnoses
from .isolation import isolated
from .subject import (
    Check,
    Crash,
    Mismatch,
    NotChecked,
    Subject,
    attempt,
    build,
    calls_recorded,
    describe,
    functions,
    subject_of,
    truth,
    undisturbed,
)

LEVELS: tuple[Level, ...] = ("value", "contract", "full")
_VALUE_CHECKS: tuple[Check, ...] = (MatchesReference(), MatchesFiniteDifferences())
_WORST: tuple[Verdict, ...] = (
    "wrong",
    "inconclusive",
    "surrogate",
    "approximate",
    "fragile",
    "correct",
)

Progress = Callable[[str], None]


def gradcheck(
    fn: Any,
    inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    reference: Callable[..., Any] | None = None,
    level: Level = "full",
    *,
    kwargs: Mapping[str, Any] | None = None,
    declared: Verdict | Iterable[Verdict] = (),
    seed: int = 0,
    progress: Progress | None = None,
    compile: bool = False,
    isolate: bool = False,
    timeout: float = 60.0,
    memory_gib: float | None = None,
) -> Report:
    """Checks the backward pass of a function, and says what is wrong with it and why.

    The comparison runs in float64 where `fn` allows it, whatever the dtype of `inputs`.
    Your tensors, the state of the random generators, a Module's buffers and grad mode
    are as they were afterwards, also when it raises.

    Args:
        fn: A callable, an `autograd.Function` subclass or a Module, whose parameters
            join the inputs.
        inputs: A tensor, a sequence of arguments or a dict of keyword arguments, nested
            as you like. What requires grad is checked, the rest is passed on.
        reference: A differentiable callable of the same arguments. Without it the truth
            is autograd of each Function's own forward, held against finite differences.
        level: `"value"` (milliseconds), `"contract"` (everything a backward promises
            beside its value) or `"full"` (other points and shapes as well).
        kwargs: Keyword arguments for `fn`.
        declared: Verdicts that are meant: `"surrogate"`, `"approximate"`.
        seed: Seed of the random grad_outputs and directions.
        progress: Called with the name of each step before it runs.
        compile: Whether to check it under `torch.compile` too, which takes seconds.
        isolate: Whether to check in a child process: a crash of the interpreter, an
            exit or a limit exceeded is then a finding.
        timeout: Seconds until the child is stopped.
        memory_gib: GiB it may take beyond what is in use now; None for no limit.

    Returns:
        The report; `report.ok` says whether all is well, `print(report)` the rest.

    Raises:
        TypeError: When an argument is of the wrong kind.
        ValueError: When there is nothing to differentiate, or `fn` raises.

    Example:
        >>> import torch
        >>> class Cube(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x**3
        ...
        ...     @staticmethod
        ...     def backward(ctx, grad_y):
        ...         (x,) = ctx.saved_tensors
        ...         return grad_y * 2 * x**2
        >>> x = torch.randn(3, 4, requires_grad=True)
        >>> gradcheck(Cube, x, level="value").verdict
        'wrong'
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    accepted = (declared,) if isinstance(declared, str) else tuple(declared)
    if unknown := set(accepted) - {"surrogate", "approximate"}:
        raise ValueError(
            "declared must be 'surrogate', 'approximate' or both, got "
            f"{', '.join(map(repr, sorted(unknown)))}"
        )
    watch = progress or (lambda step: None)
    options = {"kwargs": kwargs, "seed": seed, "compile": compile}
    check = partial(_check, fn, inputs, reference, level, accepted, **options)
    if isolate:
        return isolated(check, _name(fn), level, timeout, memory_gib, watch)
    return check(progress=watch)


def _check(
    fn: Any,
    inputs: Any,
    reference: Callable[..., Any] | None,
    level: Level,
    accepted: tuple[Verdict, ...],
    *,
    kwargs: Mapping[str, Any] | None,
    seed: int,
    compile: bool,
    progress: Progress,
    so_far: Callable[[Report], None] | None = None,
) -> Report:
    began = time.perf_counter()
    with undisturbed((fn, reference)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        progress("forward_runs")
        subject = build(fn, inputs, kwargs=kwargs, reference=reference, seed=seed)

        def report(findings: Sequence[Finding]) -> Report:
            return Report(
                run.verdict,
                subject.title,
                level,
                tuple(findings),
                tuple(cls.__name__ for cls in functions(subject)),
                tuple(
                    f"{name}: {describe(x)}"
                    for name, x in zip(
                        subject.input_names, subject.tensors, strict=True
                    )
                ),
                run.reference,
                str(subject.dtype).removeprefix("torch."),
                subject.tolerance,
                run.not_checked,
                accepted,
                time.perf_counter() - began,
            )

        tell = None if so_far is None else lambda found: so_far(report(found))
        run = _Run(subject, level, progress, compile, tell)
        return report(run.findings())


def _name(fn: Any) -> str:
    owner = getattr(fn, "__self__", None)
    named = owner if isinstance(owner, type) else fn
    return getattr(named, "__name__", type(fn).__name__)


class _Run:
    """One run of the checks over one subject."""

    def __init__(
        self,
        subject: Subject,
        level: Level,
        progress: Progress,
        compile: bool = False,
        tell: Callable[[Sequence[Finding]], None] | None = None,
    ) -> None:
        self.subject, self.level, self.progress = subject, level, progress
        self.compile, self.tell = compile, tell
        self.not_checked: dict[str, str] = {}
        self.verdict: Verdict = "correct"
        self.reference = ""

    def findings(self) -> list[Finding]:
        self.progress("backward_runs")
        if self.tell:
            self.tell(())
        crash = attempt(lambda: self.subject.gradients)
        if isinstance(crash, Crash):
            self.verdict = "wrong"
            return [
                Finding(
                    "error",
                    "backward_runs",
                    f"the backward raises {crash}",
                    function=", ".join(c.__name__ for c in functions(self.subject)),
                )
            ]
        mismatches: list[tuple[Mismatch, str]] = []
        for check in checks:
            asked_for = self.compile or not getattr(check, "opt_in", False)
            if asked_for and LEVELS.index(check.level) <= LEVELS.index(self.level):
                found = list(self._run(check, self.subject))
                if check in _VALUE_CHECKS:
                    mismatches += self._attributed(found)
                else:
                    mismatches += [
                        (m, "") for m in found if not self._known(m, mismatches)
                    ]
                if self.tell and found:
                    self.tell(self._findings(mismatches))
        self.reference = truth(self.subject).kind
        return self._findings(mismatches)

    @staticmethod
    def _known(new: Mismatch, before: list[tuple[Mismatch, str]]) -> bool:
        """Whether a wrong value is the one that is wrong at the user's point too."""
        return new.actual is not None and any(
            old.input == new.input and old.verdict != "correct" for old, _ in before
        )

    def _run(self, check: Check, subject: Subject) -> Iterator[Mismatch]:
        code = code_of(check)
        self.progress(code)
        try:
            yield from check(subject)
        except NotChecked as reason:
            self.not_checked[code] = str(reason)
            if check in _VALUE_CHECKS:
                self.verdict = "inconclusive"
        except Exception as error:
            # Checks expect the code under test to raise where that is a fault; here it
            # refuses a point of our making, such as a matrix no longer definite.
            self.not_checked[code] = f"the code under test raises {Crash(error)}"
            if check in _VALUE_CHECKS:
                self.verdict = "inconclusive"

    def _attributed(self, found: list[Mismatch]) -> list[tuple[Mismatch, str]]:
        """The mismatches, or those of the Functions inside that cause them."""
        classes = functions(self.subject)
        if not found or all(m.verdict == "correct" for m in found) or not classes:
            return [(m, "") for m in found]
        with calls_recorded(classes) as calls:
            self.subject.run(self.subject.fresh())
        if len(calls) == 1 and len(calls[0].args) == len(self.subject.leaves):
            return [(m, calls[0].function.__name__) for m in found]
        culprits: list[tuple[Mismatch, str]] = []
        seen: set[tuple[Any, ...]] = set()
        for call in calls:
            inner = subject_of(call, self.subject)
            if inner is None:
                continue
            for check in _VALUE_CHECKS:
                for mismatch in self._run(check, inner):
                    key = (call.function, mismatch.input, mismatch.message[:40])
                    if key not in seen:
                        seen.add(key)
                        culprits.append((mismatch, call.function.__name__))
        return culprits or [(m, "") for m in found]

    def _findings(self, mismatches: list[tuple[Mismatch, str]]) -> list[Finding]:
        found = []
        for mismatch, function in mismatches:
            self.verdict = min(self.verdict, mismatch.verdict, key=_WORST.index)
            cause = next(filter(None, (d(mismatch) for d in diagnoses)), "")
            found.append(
                Finding(
                    mismatch.severity,
                    mismatch.code,
                    mismatch.message,
                    mismatch.input,
                    mismatch.output,
                    function,
                    mismatch.where,
                    cause,
                    mismatch.hint,
                    mismatch.numbers,
                )
            )
        severities = ("error", "warning", "note")
        return sorted(found, key=lambda f: severities.index(f.severity))


def code_of(check: Check) -> str:
    """The name of a check in a report: `MatchesReference` is `matches_reference`.

    Args:
        check: The check.
    """
    name = type(check).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
