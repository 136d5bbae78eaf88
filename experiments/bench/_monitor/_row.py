"""One measured figure of the bench of the monitor, and the gate it has to meet."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Unit = Literal["%", "x", "us", "bytes", "KiB", "slope", "blocks"]


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: What was measured.
        value: The figure.
        unit: `%` of an unwatched step, `x` a factor, `us`, `bytes`, `KiB`, `blocks` of
            the interpreter's memory, or the `slope` of a logarithm over another.
        quartiles: Of the rounds of which the figure is the median.
        gate: What the figure has to reach; None where nothing is asked.
        least: Whether the gate is the least allowed, not the most.
        note: How the figure came about.
    """

    name: str
    value: float
    unit: Unit
    quartiles: tuple[float, float] | None = None
    gate: float | None = None
    least: bool = False
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the gate is met; True where there is none, False of NaN."""
        if self.gate is None:
            return True
        return self.value >= self.gate if self.least else self.value <= self.gate

    def cells(self) -> tuple[str, str, str, str, str]:
        """The name, the figure, its quartiles, the gate and the note, as text."""
        gate = ""
        if self.gate is not None:
            sign = ">=" if self.least else "<="
            gate = f"{sign} {self._text(self.gate)}{'' if self.met else '  missed'}"
        spread = " .. ".join(self._text(value) for value in self.quartiles or ())
        return self.name, self._text(self.value), spread, gate, self.note

    def _text(self, value: float) -> str:
        match self.unit:
            case "%":
                return f"{value:.1f} %" if abs(value) >= 10 else f"{value:.2f} %"
            case "x":
                return f"{value:.1f} x"
            case "slope":
                return f"{value:.2f}"
            case "bytes" | "us":
                return f"{value:.2f} {self.unit}"
            case _:
                return f"{value:,.0f} {self.unit}"


class Part(NamedTuple):
    """What a part of the bench found.

    Attributes:
        title: What was measured, with the sizes.
        rows: The figures.
    """

    title: str
    rows: Sequence[Row]


Measuring = Generator[float, None, Part]
"""A part under way: yields the share that is done, returns what it found."""
