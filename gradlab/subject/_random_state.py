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

    def restore(self, tensors: bool = True) -> None:
        """Puts all of them back.

        Args:
            tensors: Whether to put back torch's and NumPy's too, which takes longer
                than a small op.
        """
        random.setstate(self._python)
        if not tensors:
            return
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)

    def same(self) -> bool:
        """Whether neither torch's nor NumPy's has been drawn from since.

        Python's does not count: decorators that check types draw from it.
        """
        return (
            torch.equal(self._cpu, torch.get_rng_state())
            and (
                self._numpy is None
                or _same(self._numpy, sys.modules["numpy"].random.get_state())
            )
            and not self._cuda
        )


def _same(first: Any, second: Any) -> bool:
    return first[2:] == second[2:] and bool((first[1] == second[1]).all())
