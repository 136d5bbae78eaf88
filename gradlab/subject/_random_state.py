"""The random state of the process: kept, put back, and put back before every run."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


class RandomState:
    """The state of torch's, Python's and NumPy's global generators when it was made.

    Example:
        >>> state = RandomState()
        >>> first = torch.rand(1)
        >>> state.restore()
        >>> bool(torch.rand(1) == first)
        True
    """

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda: list[Any] = []
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            self._cuda = torch.cuda.get_rng_state_all()
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy = numpy.random.get_state() if numpy else None

    def restore(self) -> None:
        """Puts all of them back."""
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)

    def same(self) -> bool:
        """Whether none of them has been drawn from since."""
        return (
            torch.equal(self._cpu, torch.get_rng_state())
            and self._python == random.getstate()
            and (
                self._numpy is None
                or _same(self._numpy, sys.modules["numpy"].random.get_state())
            )
            and not self._cuda
        )


def _same(first: Any, second: Any) -> bool:
    return first[2:] == second[2:] and bool((first[1] == second[1]).all())
