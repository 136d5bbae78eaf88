"""What a gradient check found: `Finding`, `Report`, and how a person reads them.

Frozen data: nothing here computes a gradient. `Report` is what `gradlab.gradcheck`
returns, what `gradlab check --json` prints and what a failing test shows.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.text import Text

Severity = Literal["error", "warning", "note"]
"""`error`: wrong, crashes or writes where it must not. `warning`: a contract that code
beside it will rely on. `note`: worth knowing, nothing to mend."""

Verdict = Literal[
    "correct", "surrogate", "approximate", "fragile", "wrong", "inconclusive"
]
"""`correct`: equals the derivative and keeps the contracts. `surrogate`: differs from
it by a recognisable choice. `approximate`: agrees at a looser tolerance, which is
stated. `fragile`: the value is right but a contract breaks. `wrong`: forward and
backward disagree. `inconclusive`: something prevented the comparison."""

Level = Literal["value", "contract", "full"]
"""How much is checked; each level includes the ones before it."""

_SAYS: Mapping[Verdict, str] = {
    "correct": "equals the derivative, and every contract checked holds",
    "surrogate": "a chosen gradient, not the derivative",
    "approximate": "agrees with the derivative at a looser tolerance only",
    "fragile": "the value is right, but a contract breaks",
    "wrong": "forward and backward disagree",
    "inconclusive": "the derivative could not be compared",
}


_STYLES: Mapping[Verdict, str] = {
    "correct": "bold green",
    "surrogate": "bold cyan",
    "approximate": "bold yellow",
    "fragile": "bold yellow",
    "wrong": "bold red",
    "inconclusive": "bold magenta",
}


class GradientMismatchError(AssertionError):
    """A gradient check failed; the message is the report.

    Attributes:
        report: The report.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: How bad it is.
        code: The check that found it, as `matches_reference`.
        message: What is not as claimed, in one sentence.
        input: The input whose gradient it is about, if it is about one.
        output: The output, if it is about one.
        function: The `autograd.Function` to look into, if one was singled out.
        where: Which entries, points or layouts.
        cause: Why, with its number; empty when no diagnosis is sure.
        hint: What to do next.
        numbers: Measured figures by name.
    """

    severity: Severity
    code: str
    message: str
    input: str = ""
    output: str = ""
    function: str = ""
    where: str = ""
    cause: str = ""
    hint: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """The finding as some lines of text."""
        lines = [f"{self.severity}: {self.message}  [{self.code}]"]
        rows = {
            "in": self.function,
            "where": self.where,
            "cause": self.cause,
            "hint": self.hint,
            "numbers": ", ".join(f"{k} {v:.3g}" for k, v in self.numbers.items()),
        }
        lines += [f"{name:>7}  {text}" for name, text in rows.items() if text]
        return "\n".join(
            textwrap.fill(
                line,
                88,
                subsequent_indent=" " * 9,
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in lines
        )


@dataclass(frozen=True)
class Report:
    """The outcome of `gradlab.gradcheck`.

    Attributes:
        verdict: The outcome in one word.
        subject: What was checked, by name.
        level: How much was checked.
        findings: Everything that was found, the worst first.
        functions: Names of the `autograd.Function` classes inside.
        inputs: The inputs that were differentiated, with shape and dtype.
        reference: What the gradient was held against.
        dtype: The dtype the comparison ran in.
        tolerance: The relative error up to which gradients count as equal.
        not_checked: Check to the reason why it did not run.
        declared: Verdicts that the caller accepts beside `correct`.
        seconds: How long it took.
    """

    verdict: Verdict
    subject: str
    level: Level
    findings: tuple[Finding, ...] = ()
    functions: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    reference: str = ""
    dtype: str = ""
    tolerance: float = 0.0
    not_checked: Mapping[str, str] = field(default_factory=dict)
    declared: tuple[Verdict, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the gradient may be used: correct, or as the caller declared."""
        broken = any(f.severity != "note" for f in self.findings)
        if self.verdict in self.declared:
            return not any(
                f.severity != "note" and f.code not in _VALUE for f in self.findings
            )
        return self.verdict == "correct" and not broken

    def __str__(self) -> str:
        """The report as text, at most 88 columns wide."""
        says = _SAYS[self.verdict]
        if self.verdict == "correct" and self.level == "value":
            says = "equals the derivative; no contract was checked"
        head = f"{self.subject}: {self.verdict.upper()}, {says}"
        facts = [
            f"level {self.level}",
            self.dtype,
            f"against {self.reference}" if self.reference else "",
            f"tolerance {self.tolerance:.0e}" if self.tolerance else "",
            f"{self.seconds * 1e3:.0f} ms",
        ]
        lines = [head, "  " + " · ".join(fact for fact in facts if fact)]
        if self.inputs:
            lines.append(
                textwrap.shorten(
                    f"Gradients of: {', '.join(self.inputs)}", 86, placeholder=" ..."
                )
            )
            lines[-1] = f"  {lines[-1]}"
        if self.functions:
            lines.append(f"  Functions inside: {', '.join(self.functions)}")
        for finding in self.findings:
            lines += ["", textwrap.indent(str(finding), "  ")]
        if self.not_checked:
            lines += ["", "  not checked:"]
            lines += [
                textwrap.fill(
                    textwrap.shorten(f"{code}: {reason}", 250, placeholder=" ..."),
                    88,
                    initial_indent="    ",
                    subsequent_indent="      ",
                )
                for code, reason in self.not_checked.items()
            ]
        return "\n".join(lines)

    def __rich__(self) -> Text:
        """The same text with the verdict and the severities in colour."""
        from rich.text import Text

        text = Text(str(self))
        text.highlight_regex(rf"(?<=: ){self.verdict.upper()}", _STYLES[self.verdict])
        for severity, style in (("error", "red"), ("warning", "yellow")):
            text.highlight_regex(rf"(?m)^  {severity}:", f"bold {style}")
        text.highlight_regex(r"(?m)^    cause  .*(\n {11}.*)*", "bold")
        text.highlight_regex(
            r"(?m)^ *(where|cause|hint|numbers|in|note:)(?=  | )", "dim"
        )
        return text

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON: a number not finite is None."""
        data: dict[str, Any] = {**asdict(self), "ok": self.ok}
        for finding in data["findings"]:
            finding["numbers"] = {
                name: number if math.isfinite(number) else None
                for name, number in finding["numbers"].items()
            }
        return data

    def to_json(self, indent: int | None = 2) -> str:
        """The report as JSON.

        Args:
            indent: Spaces an indentation level; None for one line.
        """
        return json.dumps(self.to_dict(), indent=indent, default=dict, allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`.

        Args:
            data: What `to_dict` returned, also after a way through JSON.
        """
        kept: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        kept.pop("ok", None)
        kept["findings"] = tuple(map(_finding, data["findings"]))
        return cls(**kept)

    def raise_if_failed(self) -> Report:
        """Returns the report itself when it is `ok`.

        Raises:
            GradientMismatchError: When it is not; the message is the report.
        """
        if not self.ok:
            raise GradientMismatchError(self)
        return self


_VALUE = ("matches_reference", "matches_finite_differences")


def _finding(data: Mapping[str, Any]) -> Finding:
    numbers = data["numbers"].items()
    known = {name: math.nan if n is None else n for name, n in numbers}
    return Finding(**{**data, "numbers": known})
