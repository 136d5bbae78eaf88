"""What a pathology says: a diagnosis card for a person, and the same as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MOST = 4
"""How many layers are named before "and n more"."""


@dataclass(frozen=True)
class Finding:
    """One thing that goes wrong in a run: the evidence first, what to do last.

    The `Finding` of a gradient check is a verdict about code, with a severity and a
    place in it; this one is about a run, and may be mistaken: it has a step, a
    confidence and an experiment that would settle it.

    Attributes:
        code: The pathology that says it, as `vanishing`.
        step: The step at which it was said.
        symptom: What is seen, in one sentence with its numbers.
        layers: The layers or parameters it is seen in, the first cause first.
        evidence: Measured figures by name.
        causes: Likely causes, the likeliest first.
        experiment: The one next thing to try.
        confidence: How sure it is, from 0 to 1.
        level: How bad it is, growing; ten times that is worth saying again.

    Raises:
        ValueError: If the confidence is not from 0 to 1, or the step is negative.

    Example:
        >>> print(
        ...     Finding(
        ...         "vanishing",
        ...         step=12,
        ...         symptom="the gradient shrinks ×0.24 a layer",
        ...         layers=("0", "2"),
        ...         evidence={"factor_a_layer": 0.24},
        ...         causes=("saturated sigmoids",),
        ...         experiment="ReLU in place of the sigmoid",
        ...         confidence=0.9,
        ...     )
        ... )
        step 12: the gradient shrinks ×0.24 a layer  [vanishing, 90% sure]
            in        0, 2
            evidence  factor_a_layer 0.24
            likely    1. saturated sigmoids
            try       ReLU in place of the sigmoid
    """

    code: str
    step: int
    symptom: str
    layers: tuple[str, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)
    causes: tuple[str, ...] = ()
    experiment: str = ""
    confidence: float = 0.5
    level: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise ValueError(
                f"a confidence is from 0 to 1, got confidence={self.confidence}"
            )
        if self.step < 0:
            raise ValueError(f"a step is counted from 0, got step={self.step}")

    def __str__(self) -> str:
        """The card as some lines of text, at most 88 columns wide."""
        head = f"step {self.step}: {self.symptom}"
        lines = _fill(f"{head}  [{self.code}, {self.confidence:.0%} sure]", "", "    ")
        more = len(self.layers) - MOST
        named = ", ".join(self.layers[:MOST]) + (
            f" and {more} more" if more > 0 else ""
        )
        figures = ", ".join(f"{k} {v:.3g}" for k, v in self.evidence.items())
        entries = [("in", named), ("evidence", figures)]
        entries += [
            ("likely" if i == 1 else "", f"{i}. {cause}")
            for i, cause in enumerate(self.causes, 1)
        ]
        entries.append(("try", self.experiment))
        for name, text in entries:
            if text:
                lines += _fill(text, f"    {name:<10}", " " * 14)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The card as plain data, ready for JSON."""
        return asdict(self) | {"evidence": dict(self.evidence)}


def _fill(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        88,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )
