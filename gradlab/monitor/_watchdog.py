"""A sink that says what goes wrong, once, and keeps the steps that led there."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from .._snapshot import Snapshot
from ..pathologies import Finding, History, Pathology, pathologies as every_pathology
from ._flight_recorder import write_recording
from ._outputs import Terminal

Output = Callable[[Finding], object]
"""Whatever takes a finding."""

Act = Callable[[Finding, bool], object]
"""Whatever takes a finding, and whether it is news."""


class Explainer(Protocol):
    """Looks at every snapshot, and adds what it knows to a finding."""

    def observe(self, snapshot: Snapshot) -> object:
        """Look at one snapshot, before the pathologies do.

        Args:
            snapshot: What was measured at one step.
        """

    def __call__(self, finding: Finding) -> Finding:
        """Add to a finding.

        Args:
            finding: What a pathology found.

        Returns:
            The same finding, or one that says more.
        """
        ...


Key = tuple[str, str, tuple[str, ...]]


@dataclass
class _Said:
    """What was said of one pathology: how bad it was, and since when it is better."""

    level: float
    silent: int = 0


class Watchdog:
    """Asks the pathologies about each snapshot, and hands what they find to outputs.

    A thing is said once. It is said again when it has become ten times worse, or when
    it was gone for a while and came back; not at all while what brought it about is
    said. Snapshots of other stages, totals or quantities have histories of their own.
    Nothing here raises into training: what fails, a pathology or an output, is reported
    once as a warning, and counted.

    Args:
        pathologies: What to look for.
        outputs: What is called with each finding; the terminal if nothing is said.
        explain: What adds to a finding before it is handed on, as a `NonFiniteTrace`.
        acts: What is called with each finding at each reading, and with whether it is
            news: what guards a step must do so again.
        recording: The JSON file for the last `window` steps of every quantity, written
            with each finding and by `dump`; None writes none.
        window: How many steps are kept.
        forget: After how many readings without it a pathology counts as gone.

    Raises:
        TypeError: If a pathology or an output is of the wrong kind.
        ValueError: If two pathologies have one code, or `window` is below 1.

    Attributes:
        findings: Everything said so far.
        failures: How often a pathology or an output failed.

    Example:
        >>> import torch
        >>> from gradlab import Monitor
        >>> from gradlab.quantities import GradNonFinite, GradNorm, ParamNorm
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters())
        >>> watchdog = Watchdog(outputs=[lambda finding: print(finding.code)])
        >>> with Monitor(
        ...     model,
        ...     optimizer,
        ...     quantities=[GradNorm(), GradNonFinite(), ParamNorm()],
        ...     sinks=[watchdog],
        ... ):
        ...     for _ in range(3):
        ...         (model(torch.ones(4, 2)).sum() * torch.inf).backward()
        ...         optimizer.step()
        non_finite
        >>> watchdog.skipped["vanishing"]
        'needs grad_rms, which is not measured'
    """

    def __init__(
        self,
        pathologies: Sequence[Pathology] = every_pathology,
        outputs: Sequence[Output] | None = None,
        *,
        explain: Sequence[Explainer] = (),
        acts: Sequence[Act] = (),
        recording: str | os.PathLike[str] | None = None,
        window: int = 64,
        forget: int = 20,
    ) -> None:
        for pathology in pathologies:
            if not isinstance(pathology, Pathology):
                raise TypeError(
                    "pathologies are instances of gradlab.pathologies.Pathology, got "
                    f"{pathology!r}; is it a class that was not called?"
                )
        codes = [pathology.code for pathology in pathologies]
        if len(set(codes)) < len(codes):
            raise ValueError(f"pathologies have a code each, got {codes}")
        outputs = (Terminal(),) if outputs is None else tuple(outputs)
        for output in outputs:
            if not callable(output) or isinstance(output, type):
                raise TypeError(
                    f"an output is called with each Finding, got {output!r}; a class "
                    "must be made an instance first"
                )
        History(window)
        self.pathologies, self.outputs = tuple(pathologies), outputs
        self.explain = tuple(explain)
        self.acts = tuple(acts)
        self.recording = None if recording is None else Path(recording)
        self.window, self.forget = window, forget
        self.findings: list[Finding] = []
        self.failures = 0
        self._histories: dict[Key, History] = {}
        self._said: dict[tuple[Key, str], _Said] = {}
        self._reported: set[int] = set()

    @property
    def skipped(self) -> dict[str, str]:
        """The pathologies that are not looked for, by code, and why."""
        reasons: dict[str, str] = {}
        for one in self.pathologies:
            lacking = [
                one.lacks(history.quantities) for history in self._histories.values()
            ]
            if lacking and all(lacking):
                few = ", ".join(sorted(min(lacking, key=len)))
                reasons[one.code] = f"needs {few}, which is not measured"
        return reasons

    def __call__(self, snapshot: Snapshot) -> None:
        """Look at one snapshot.

        Args:
            snapshot: What was measured at one step.
        """
        total = next((r.name for r in snapshot.rows if r.kind == "total"), "")
        key = snapshot.stage, total, snapshot.quantities
        history = self._histories.setdefault(key, History(self.window))
        history.take(snapshot)
        for explainer in self.explain:
            self._try(explainer.observe, snapshot)
        found: list[tuple[Finding, bool]] = []
        for pathology in self.pathologies:
            if (history.seen - 1) % pathology.every == 0:
                found += self._ask(pathology, key, history)
        for finding, news in found:
            if news:
                self._say(finding)
            for act in self.acts:
                self._try(act, finding, news)
        said = [finding.code for finding, news in found if news]
        if said and self.recording is not None:
            self.dump(said[0])

    def _say(self, finding: Finding) -> None:
        for explainer in self.explain:
            said = self._try(explainer, finding)
            finding = said if isinstance(said, Finding) else finding
        self.findings.append(finding)
        for output in self.outputs:
            self._try(output, finding)

    def _ask(
        self, pathology: Pathology, key: Key, history: History
    ) -> list[tuple[Finding, bool]]:
        """What a pathology finds, and whether it is news."""
        if pathology.lacks(history.quantities):
            return []
        finding = self._try(pathology, history)
        said = self._said.get((key, pathology.code))
        if not isinstance(finding, Finding):
            if said is not None:
                said.silent += pathology.every
                if said.silent >= self.forget:
                    del self._said[key, pathology.code]
            return []
        if self._is_explained(pathology, key):
            return []
        # Beyond infinity there is no worse.
        worst = said is not None and math.isinf(said.level)
        if said is not None and (worst or finding.level < 10 * said.level):
            said.silent = 0
            return [(finding, False)]
        self._said[key, pathology.code] = _Said(finding.level)
        return [(finding, True)]

    def _is_explained(self, pathology: Pathology, key: Key) -> bool:
        """Whether its cause, or itself in another snapshot of the step, is said now."""
        return any(
            code in pathology.follows or (code == pathology.code and other != key)
            for other, code in self._said
            # Activations have no total: they are everyone's.
            if other[1] == key[1] or not other[1] or not key[1]
        )

    def dump(self, reason: str = "asked for") -> None:
        """Write the kept steps to `recording` now, as when the run crashes.

        Args:
            reason: Why; it is written too.
        """
        if self.recording is not None:
            self._try(
                write_recording,
                self.recording,
                self._histories.values(),
                self.findings,
                reason,
            )

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the kept steps if the block ended with an exception."""
        if error is not None:
            self.dump(f"{type(error).__name__}: {error}")

    def _try(self, call: Callable[..., object], *args: object) -> object:
        try:
            return call(*args)
        except Exception as error:
            self.failures += 1
            if id(call) not in self._reported:
                self._reported.add(id(call))
                name = getattr(call, "__qualname__", type(call).__name__)
                warnings.warn(
                    "a watchdog must not stop the run it watches; "
                    f"{name} raised {type(error).__name__}: {error}. Training goes on; "
                    "its failures from now on are only counted, in Watchdog.failures",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return None
