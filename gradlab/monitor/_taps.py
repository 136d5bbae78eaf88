"""The tap of a plain loop: the gradient an optimizer is about to apply."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

Read = Callable[[], object]


class OptimizerTap:
    """Calls back once at each step of an optimizer, when its gradient is final.

    A step with a closure computes its gradient itself, so there the reading waits for
    the closure's first run.

    Args:
        optimizer: The optimizer to watch.
        on_step: Called at each step; returns what is to be done when the gradient is
            final, or None.
        on_done: Called when the step is over.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        on_step: Callable[[Optimizer], Read | None],
        on_done: Callable[[Optimizer], object] = lambda optimizer: None,
    ) -> None:
        self.optimizer = optimizer
        self._on_step = on_step
        self._on_done = on_done
        self._stepping = False
        self._hidden: list[tuple[Tensor, Tensor | None]] = []
        self._hooks = (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        )

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        for hook in self._hooks:
            hook.remove()
        self._show_gradients()

    @property
    def stepping(self) -> bool:
        """Whether a step has begun, and neither ended nor raised."""
        return self._stepping and _steps_on_the_stack(self.optimizer) > 0

    def hide_gradients(self) -> None:
        """Let the step that has begun see no gradient, and so do nothing."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                self._hidden.append((parameter, parameter.grad))
                parameter.grad = None

    def _show_gradients(self) -> None:
        for parameter, grad in self._hidden:
            parameter.grad = grad
        self._hidden.clear()

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # A subclass whose step calls its parent's runs the hooks twice in one step.
        if self._stepping and _steps_on_the_stack(optimizer) != 1:
            return None
        self._stepping = True
        self._hidden.clear()
        read = self._on_step(optimizer)
        if read is None:
            return None
        # args[0] is the optimizer itself.
        if len(args) > 1 and callable(args[1]):
            return (args[0], _Closure(args[1], read), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": _Closure(kwargs["closure"], read)}
        read()
        return None

    def _after(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # The inner of two nested steps ends first, with all of the update done.
        self._show_gradients()
        if self._stepping:
            self._on_done(optimizer)
        self._stepping = False


def callers(code: CodeType) -> Iterator[object]:
    """The `self` of each call on the stack that runs this code, the innermost first.

    Args:
        code: That of a method.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            yield frame.f_locals.get("self")
        frame = frame.f_back


def _steps_on_the_stack(optimizer: Optimizer) -> int:
    """How many calls of its `step` there are, each in the one before.

    A step that raises ends without a word to its hooks: only the stack knows.
    """
    return sum(one is optimizer for one in callers(_CALLS_HOOKS))


# What torch puts around the step of each class; dynamo may put more around it.
_CALLS_HOOKS = Optimizer.profile_hook_step(Optimizer.step).__code__


class _Closure:
    """A closure that reads after its first run."""

    def __init__(self, closure: Callable[[], Any], read: Read) -> None:
        self._closure = closure
        self._read: Read | None = read

    def __call__(self) -> Any:
        loss = self._closure()
        if self._read is not None:
            read, self._read = self._read, None
            read()
        return loss
