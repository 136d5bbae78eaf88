"""What the runs of the fault benchmark say of each rule: recall, precision, alarms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from gradlab.pathologies import pathologies

from ._planted import FAULTS, Fault
from ._published_rules import TOOLS
from ._trace import QUANTITIES

OURS = "gradlab"

_FAULTS = {fault.name: fault for fault in FAULTS}

MEANS: dict[str, frozenset[str]] = {
    **{one.code: frozenset({one.code}) for one in pathologies},
    **{rule.__name__: codes for rules in TOOLS.values() for rule, codes in rules},
}
"""The codes that a rule is counted as; those of gradlab mean themselves."""


@dataclass(frozen=True)
class Run:
    """One run and what was said of it.

    Attributes:
        net: Its network.
        change: The fault that was planted, or the way it was trained.
        faulty: Whether it was a fault.
        seed: Its seed.
        held_out: Whether the network is of the held-out half.
        accuracy: The mean of the last steps.
        said: By tool: rules in the order in which they spoke, with their steps.
    """

    net: str
    change: str
    faulty: bool
    seed: int
    held_out: bool
    accuracy: float
    said: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)

    @property
    def fault(self) -> Fault:
        """What was planted."""
        return _FAULTS[self.change]

    def names_it(self, rule: str) -> bool:
        """Whether a rule names the fault."""
        return bool(MEANS[rule] & self.fault.right)

    def is_true(self, rule: str) -> bool:
        """Whether what a rule says is true of the fault: its name or a symptom."""
        return bool(MEANS[rule] & (self.fault.right | self.fault.also))


@dataclass(frozen=True)
class Score:
    """How well a tool does on faulty runs.

    Attributes:
        runs: How many.
        recall: The share of them in which a rule that names the fault spoke at all.
        first: The share in which the first one to speak did.
        steps: The median of the steps until then; NaN if it never was said.
    """

    runs: int
    recall: float
    first: float
    steps: float


def score(runs: Iterable[Run], tool: str) -> Score:
    """Recall, first cause and delay.

    Args:
        runs: Faulty runs.
        tool: Whose rules.
    """
    runs = list(runs)
    right = [[s for r, s in run.said[tool] if run.names_it(r)] for run in runs]
    until = [s[0] - run.fault.seen_at for s, run in zip(right, runs, strict=True) if s]
    first = sum(
        bool(run.said[tool]) and run.names_it(run.said[tool][0][0]) for run in runs
    )
    n = max(1, len(runs))
    return Score(
        len(runs),
        len(until) / n,
        first / n,
        statistics.median(until) if until else math.nan,
    )


def upper(k: int, n: int, level: float = 0.95) -> float:
    """The upper confidence bound of a share of which k of n were seen (Clopper).

    Args:
        k: How often.
        n: Of how many.
        level: Of the bound.

    Example:
        >>> round(upper(0, 300), 4)
        0.0099
    """
    low, high = k / n if n else 0.0, 1.0
    for _ in range(40):
        p = (low + high) / 2
        below = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
        low, high = (p, high) if below > 1 - level else (low, p)
    return high


def of_faults(runs: Sequence[Run], title: str) -> Table:
    """One line a fault, the tools beside each other.

    Args:
        runs: The runs of one half.
        title: Its name.
    """
    tools = (OURS, *TOOLS)
    table = Table(title=f"{title}: faults", title_justify="left")
    for name in ("fault", "nets", "runs"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    for tool in tools:
        for name, head in (("recall", tool), ("first", ""), ("steps", "")):
            table.add_column(f"{head}\n{name}", justify="right")
    faulty = [run for run in runs if run.faulty]
    groups = [(f.name, [r for r in faulty if r.change == f.name]) for f in FAULTS]
    for name, mine in (*groups, ("all", faulty)):
        if not mine:
            continue
        cells = [name, str(len({run.net for run in mine})), str(len(mine))]
        for tool in tools:
            found = score(mine, tool)
            wait = "-" if math.isnan(found.steps) else f"{found.steps:.0f}"
            cells += [f"{found.recall:.2f}", f"{found.first:.2f}", wait]
        table.add_row(*cells, style="bold" if mine is faulty else None)
    return table


@dataclass(frozen=True)
class OfRule:
    """How a rule does.

    Attributes:
        rule: Its name.
        expected: Faulty runs that it would name.
        recall: The share of them in which it spoke.
        steps: The median of the steps until then.
        spoke: Faulty runs in which it spoke.
        precision: The share of them in which what it says is true.
        alarms: Healthy runs in which it spoke.
        healthy: Healthy runs.
    """

    rule: str
    expected: int
    recall: float
    steps: float
    spoke: int
    precision: float
    alarms: int
    healthy: int

    @property
    def rate(self) -> float:
        """The false-positive rate."""
        return self.alarms / max(1, self.healthy)


def of_rule(runs: Sequence[Run], tool: str, rule: str) -> OfRule:
    """How a rule of a tool does.

    Args:
        runs: The runs of one half.
        tool: Whose rule.
        rule: Which.
    """
    healthy = [run for run in runs if not run.faulty]
    faulty = [run for run in runs if run.faulty]
    expected = [run for run in faulty if run.names_it(rule)]
    spoke = [run for run in faulty if rule in dict(run.said[tool])]
    hits = [run for run in expected if rule in dict(run.said[tool])]
    until = [dict(run.said[tool])[rule] - run.fault.seen_at for run in hits]
    return OfRule(
        rule,
        len(expected),
        len(hits) / len(expected) if expected else math.nan,
        statistics.median(until) if until else math.nan,
        len(spoke),
        sum(run.is_true(rule) for run in spoke) / len(spoke) if spoke else math.nan,
        sum(rule in dict(run.said[tool]) for run in healthy),
        len(healthy),
    )


def rules_of(tool: str) -> list[str]:
    """The names of the rules of a tool.

    Args:
        tool: Its name.
    """
    if tool in TOOLS:
        return [rule.__name__ for rule, _ in TOOLS[tool]]
    # What needs more than a run has is not asked: WrongBackward compares backwards.
    measured = [quantity.name for quantity in QUANTITIES]
    return [one.code for one in pathologies if not one.lacks(measured)]


def of_rules(runs: Sequence[Run], title: str) -> Table:
    """One line a rule of each tool.

    Args:
        runs: The runs of one half.
        title: Its name.
    """
    table = Table(title=f"{title}: rules", title_justify="left")
    columns = "rule", "to name", "recall", "steps", "spoke", "precision"
    for name in (*columns, "healthy runs", "false alarms", "upper 95 %"):
        table.add_column(name, justify="left" if name == "rule" else "right")
    healthy = [run for run in runs if not run.faulty]
    for tool in (OURS, *TOOLS):
        table.add_section()
        for rule in rules_of(tool):
            one = of_rule(runs, tool, rule)
            table.add_row(
                rule,
                str(one.expected),
                _number(one.recall, ".2f"),
                _number(one.steps, ".0f"),
                str(one.spoke),
                _number(one.precision, ".2f"),
                str(one.healthy),
                f"{one.alarms} = {one.rate:.1%}",
                f"{upper(one.alarms, one.healthy):.1%}",
            )
        alarms = sum(bool(run.said[tool]) for run in healthy)
        table.add_row(
            f"any of {tool}",
            *[""] * 5,
            str(len(healthy)),
            f"{alarms} = {alarms / max(1, len(healthy)):.1%}",
            f"{upper(alarms, len(healthy)):.1%}",
            style="bold",
        )
    return table


def missed_gates(runs: Sequence[Run]) -> list[str]:
    """The gates that the held-out half misses, one sentence each.

    Args:
        runs: All runs.
    """
    held_out = [run for run in runs if run.held_out]
    missed: list[str] = []
    for rule in rules_of(OURS):
        one = of_rule(held_out, OURS, rule)
        if one.rate > 0.01:
            missed.append(
                f"{rule} spoke in {one.alarms} of {one.healthy} healthy runs, > 1 %"
            )
    faulty = [run for run in held_out if run.faulty]
    found = score(faulty, OURS)
    if faulty and found.recall < 0.9:
        missed.append(f"recall is {found.recall:.3f}, below 0.9")
    if faulty and found.first < 0.85:
        missed.append(f"the first cause is right in {found.first:.3f}, below 0.85")
    return missed


def _number(x: float, form: str) -> str:
    return "-" if math.isnan(x) else format(x, form)
