"""`Pathology`: one thing that goes wrong in training, and how it is recognised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
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
        instead: Quantities that do as well; empty if there are none.
        follows: Codes of pathologies that bring it about: while one of them is said,
            it is no news.
        every: It is asked at the first of every so many readings.
    """

    code: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    instead: ClassVar[tuple[str, ...]] = ()
    follows: ClassVar[tuple[str, ...]] = ()
    every: ClassVar[int] = 4

    @classmethod
    def lacks(cls, quantities: Collection[str]) -> tuple[str, ...]:
        """What is missing before it can be asked; nothing if `instead` is there.

        Args:
            quantities: The names of what is measured.
        """
        if cls.instead and all(name in quantities for name in cls.instead):
            return ()
        return tuple(name for name in cls.needs if name not in quantities)

    @abstractmethod
    def __call__(self, history: History) -> Finding | None:
        """Look at the run so far.

        Args:
            history: The last steps, with all the quantities of `needs`, or
                of `instead`.

        Returns:
            What is wrong now; None if nothing is, or nothing surely.
        """
