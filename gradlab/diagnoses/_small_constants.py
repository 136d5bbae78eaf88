"""The true gradient as it were without one small constant of the forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from gradlab.subject import no_grad_ignored

from ._evidence import Evidence, Proposal
from ._paths import own_body, paths
from ._recorder import users_line


def without_small_constants(
    seen: Evidence, largest: float
) -> Iterator[tuple[float, str, Proposal]]:
    """The true gradients of the forward with one small constant at a time set to 0.

    Args:
        seen: The evidence whose gradient is to be explained.
        largest: Up to which size a constant is small.

    Yields:
        The constant, the user's line, and the gradient without it.
    """
    subject = seen.subject
    if paths(seen) is None:
        return
    body = own_body(subject)
    recorder = _Constants(largest, None)
    _vjp(seen, 0, body, recorder)
    for number, (value, line) in enumerate(recorder.found):
        yield (
            value,
            line,
            lambda i, n=number: _vjp(seen, i, body, _Constants(largest, n)),
        )


def _vjp(
    seen: Evidence, i: int, body: Callable[..., Any], mode: TorchFunctionMode
) -> Tensor | None:
    def run(*args: Any) -> Any:
        copies = [a.clone() if isinstance(a, Tensor) else a for a in args]
        with mode, no_grad_ignored():
            return body(*copies)

    return seen.subject.vjp(seen.cotangents[i], call=run)[seen.place]


class _Constants(TorchFunctionMode):
    """Finds the small numbers that ops are called with, and sets one of them to 0."""

    def __init__(self, largest: float, zeroed: int | None) -> None:
        super().__init__()
        self.found: list[tuple[float, str]] = []
        self._largest, self._zeroed = largest, zeroed

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        line = users_line()

        def replaced(a: Any) -> Any:
            if not isinstance(a, float) or not 0 < a <= self._largest:
                return a
            self.found.append((a, line))
            return 0.0 if len(self.found) - 1 == self._zeroed else a

        args, kwargs = pytree.tree_map(replaced, (args, kwargs or {}))
        return func(*args, **kwargs)
