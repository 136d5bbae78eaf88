"""Sees every call of a Function, whoever makes it, and the gradient that comes back.

torch looks `forward` and `setup_context` up on the class at each call, so what is put
there is used even by a captured `SomeFunction.apply`. It stays there while somebody
observes, and passes on to the original in three attribute checks while nobody wants to
see a call. Dynamo traces the original: a compiled graph is not observed.
"""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..subject import FunctionClass
from ._known_functions import KnownFunction, has_setup_context

Grads = Sequence[Tensor | None]
Backward = Callable[[Grads], object]
"""Called with the gradients of the outputs, each time that a backward arrives."""


class Observer(ABC):
    """Whoever wants to see calls.

    Attributes:
        watching: Whether it wants to; None if it must be asked.
    """

    watching: bool | None = False

    @abstractmethod
    def on_call(
        self, known: KnownFunction, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Backward | None:
        """A Function is about to run its forward.

        Args:
            known: The Function.
            args: The arguments of `forward`, before it may write to them.
            kwargs: Its keyword arguments.

        Returns:
            Who waits for the gradient of the output; None if nobody does.
        """


class Spies:
    """Stands before the forward of some Functions for one observer.

    Args:
        functions: The Functions.
        observer: Whom to tell.
    """

    def __init__(self, functions: Sequence[KnownFunction], observer: Observer) -> None:
        self._observer = observer
        self._functions = functions
        self._spies: list[_Spy] = []
        self.restore()

    def restore(self) -> bool:
        """Stand there again after `remove`.

        Returns:
            Whether it did not.
        """
        if self._spies:
            return False
        for known in self._functions:
            spy = _SPIES.get(known.function)
            if spy is None:
                spy = _SPIES[known.function] = _Spy(known.function)
            spy.observers = (*spy.observers, (self._observer, known))
            self._spies.append(spy)
        return True

    def remove(self) -> None:
        """Leave no trace on the classes; safe to call twice."""
        for spy in self._spies:
            kept = [pair for pair in spy.observers if pair[0] is not self._observer]
            spy.observers = tuple(kept)
            if not kept and _SPIES.pop(spy.function, None) is not None:
                spy.restore()
        self._spies.clear()


@contextmanager
def unobserved() -> Iterator[None]:
    """Inside, the calls of this thread are nobody's business."""
    before, _local.quiet = getattr(_local, "quiet", False), True
    try:
        yield
    finally:
        _local.quiet = before


class _Spy:
    """What stands on one class, for all observers."""

    def __init__(self, function: FunctionClass) -> None:
        self.function = function
        self.observers: tuple[tuple[Observer, KnownFunction], ...] = ()
        stands_in = _with_setup if has_setup_context(function) else _with_ctx
        self._own = {
            name: function.__dict__.get(name)
            for name in ("forward", "setup_context")
            if name == "forward" or stands_in is _with_setup
        }
        for name, method in stands_in(self, function).items():
            setattr(function, name, staticmethod(method))

    def restore(self) -> None:
        """Put back what was there."""
        for name, method in self._own.items():
            if method is None:
                delattr(self.function, name)
            else:
                setattr(self.function, name, method)

    def wanted(self) -> bool:
        """Whether somebody wants to see a call."""
        for observer, _ in self.observers:  # noqa: SIM110, twice as fast as any()
            if observer.watching is not False:
                return True
        return False

    def waiting(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Backward]:
        """Who waits for the gradient of this call."""
        if getattr(_local, "quiet", False):
            return []
        asked = (o.on_call(known, args, kwargs) for o, known in self.observers)
        return [backward for backward in asked if backward is not None]


_SPIES: dict[FunctionClass, _Spy] = {}
_local = threading.local()


def _with_ctx(spy: _Spy, function: FunctionClass) -> dict[str, Callable[..., Any]]:
    original: Callable[..., Any] = function.forward

    @functools.wraps(original)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not spy.wanted():
            return original(ctx, *args, **kwargs)
        waiting = spy.waiting(args, kwargs)
        output = original(ctx, *args, **kwargs)
        _wait(ctx, waiting)
        return output

    return {"forward": forward}


def _with_setup(spy: _Spy, function: FunctionClass) -> dict[str, Callable[..., Any]]:
    original: Callable[..., Any] = function.forward
    original_setup: Callable[..., Any] = function.setup_context

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not spy.wanted():
            return original(*args, **kwargs)
        waiting = spy.waiting(args, kwargs)
        output = original(*args, **kwargs)
        # setup_context comes next, in this thread.
        _local.waiting = (spy, waiting) if waiting else None
        return output

    @functools.wraps(original_setup)
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        result = original_setup(ctx, inputs, output)
        if torch.compiler.is_compiling():
            return result
        found = getattr(_local, "waiting", None)
        if found is not None:
            _local.waiting = None
            if found[0] is spy:
                _wait(ctx, found[1])
        return result

    return {"forward": forward, "setup_context": setup_context}


def _wait(ctx: Any, waiting: Sequence[Backward]) -> None:
    # The ctx of torch.func is no node of a graph.
    if hasattr(ctx, "register_prehook"):
        for backward in waiting:
            ctx.register_prehook(_Prehook(backward))


class _Prehook:
    """The hook of one node of the graph; it changes nothing."""

    __slots__ = ("_backward",)

    def __init__(self, backward: Backward) -> None:
        self._backward = backward

    def __call__(self, grads: Grads) -> None:
        self._backward(grads)
