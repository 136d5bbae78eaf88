"""What may be done about a finding: opt-in, dry unless said otherwise, audited."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn
from torch.optim import Optimizer

from ..pathologies import Finding
from ._options import must_be_listed

_log = logging.getLogger("gradlab")


@dataclass
class Run:
    """The run that an action is about.

    Attributes:
        model: The watched model, before the step if there is still one to skip.
        optimizer: Whose step it is; None outside of one.
        skippable: Whether the step can be skipped: not once it was taken, and not
            because of what this rank alone has seen.
        skip: Whether it shall be.
        stop: Whether the run shall end.
    """

    model: nn.Module
    optimizer: Optimizer | None = None
    skippable: bool = False
    skip: bool = False
    stop: bool = False


@dataclass(frozen=True)
class Audit:
    """One line of the audit: what was done about a finding, or would have been.

    Attributes:
        step: The step.
        code: The pathology that was found.
        action: What there was to do.
        done: Whether it was done.
        why: Why not, or how.
    """

    step: int
    code: str
    action: str
    done: bool
    why: str = ""

    def __str__(self) -> str:
        """The line."""
        verdict = "done" if self.done else "not done"
        why = f": {self.why}" if self.why else ""
        return f"step {self.step}: {self.code} → {self.action}, {verdict}{why}"


@dataclass(frozen=True)
class Action(ABC):
    """Something to do about a finding.

    Attributes:
        codes: Codes of the pathologies it is for; None is every one.
        repeats: Whether it is done at each reading that has the finding; else when the
            finding is said.

    Raises:
        TypeError: If the codes are not a list.
    """

    codes: Sequence[str] | None = field(default=None, kw_only=True)
    repeats: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.codes is not None:
            must_be_listed("codes", self.codes)

    @property
    @abstractmethod
    def intent(self) -> str:
        """What it does, in the infinitive."""

    @abstractmethod
    def __call__(self, run: Run, finding: Finding) -> str | None:
        """Do it.

        Args:
            run: The run.
            finding: What was found.

        Returns:
            Why it could not be done; None if it was.
        """


class Actions:
    """Takes findings and acts on them; each action leaves a line of audit.

    The line goes to the logger `gradlab`, as a warning, and to `audit`. An action that
    fails is a line that says so, and the run goes on.

    Args:
        actions: What to do.
        run: The run.
        dry_run: Whether to say only what would be done.
        codes: What pathologies are looked for.

    Raises:
        TypeError: If an action is of the wrong kind.
        ValueError: If an action is for a pathology that is not looked for.
    """

    def __init__(
        self, actions: Sequence[Action], run: Run, dry_run: bool, codes: Sequence[str]
    ) -> None:
        for action in actions:
            if not isinstance(action, Action):
                raise TypeError(
                    "actions are instances of gradlab.monitor.Action, got "
                    f"{action!r}; is it a class that was not called?"
                )
            if unknown := sorted({*(action.codes or ())}.difference(codes)):
                raise ValueError(
                    "an action is for pathologies that are looked for, got "
                    f"codes={unknown}; there are {', '.join(codes) or 'none'}"
                )
        if actions and not codes:
            raise ValueError(
                "an action is about what pathologies find, got no pathologies; say "
                "pathologies=True"
            )
        self.audit: list[Audit] = []
        self._actions = tuple(actions)
        self._run = run
        self._dry_run = dry_run

    def __call__(self, finding: Finding, news: bool = True) -> None:
        """Act on one finding.

        Args:
            finding: What was found.
            news: Whether it is said now; only what repeats is done again.
        """
        for action in self._actions:
            meant = action.codes is None or finding.code in action.codes
            if meant and (news or action.repeats):
                done, why = self._act(action, finding)
                line = Audit(finding.step, finding.code, action.intent, done, why)
                self.audit.append(line)
                _log.warning("%s", line)

    def _act(self, action: Action, finding: Finding) -> tuple[bool, str]:
        if self._dry_run:
            return False, "a dry run; say dry_run=False"
        try:
            refused = action(self._run, finding)
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"
        return refused is None, refused or ""
