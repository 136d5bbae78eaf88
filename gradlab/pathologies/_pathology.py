"""`Pathology`: one thing that goes wrong in training, and how it is recognised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ._finding import Finding
from ._history import History


class Pathology(ABC):
    """One pathology: a rule over the last steps of a run.

    A subclass is a frozen dataclass whose fields are its thresholds. It is silent when
    unsure: a false alarm costs more than a late one. What it has said before is not its
    business, the caller says a thing once.

    Attributes:
        code: Its name in findings.
        needs: The quantities it cannot do without.
        every: It is asked at the first of every so many readings.
    """

    code: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    every: ClassVar[int] = 4

    @abstractmethod
    def __call__(self, history: History) -> Finding | None:
        """Look at the run so far.

        Args:
            history: The last steps, with all the quantities of `needs`.

        Returns:
            What is wrong now; None if nothing is, or nothing surely.
        """
