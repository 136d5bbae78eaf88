"""Keeps what a model was called with since the last step of the optimizer."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .._watched import _tensors as tensors_of
from ._call import Call, version_of
from ._untouched import get_generators


class ForwardCalls:
    """Hooks on the module that is called, and on those of its children that are.

    A module that runs inside of another is no call. A new step begins with the first
    call after a parameter was changed in place, or after gradients were set to None: a
    step that GradScaler skipped never changes a parameter.

    Args:
        called: The module that is called.
        model: The module that is run again: the same, or what it wraps.
        most: How many calls are kept.

    Attributes:
        kept: The calls, the latest last.
        seen: How many there were.
        failures: How often a call could not be kept.
    """

    def __init__(self, called: nn.Module, model: nn.Module, most: int) -> None:
        self.kept: deque[Call] = deque(maxlen=most)
        self.seen = 0
        self.failures = 0
        self._running: nn.Module | None = None
        trained = [p for p in model.parameters() if p.requires_grad]
        # Each of several optimizers changes some of them.
        self._sample = trained[:: max(1, len(trained) // 6)]
        self._versions: list[int] = []
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        # What `register_buffer` and `to` write to; the tensors may be replaced.
        self._buffers = [m._buffers for m in model.modules() if m._buffers]
        self._called: set[str] = set()
        self._inside: set[str] = set()
        self._modules = {"": called}
        if called is model:
            self._modules.update(_called_children(model))
        self._handles: dict[str, tuple[RemovableHandle, ...]] = {}
        self.restore()

    def restore(self) -> None:
        """Keep calls again after `remove`; without it, nothing happens."""
        if self._handles:
            return
        self._running = None
        self._handles = {
            p: self._hook(module, p) for p, module in self._modules.items()
        }

    def _hook(self, module: nn.Module, path: str) -> tuple[RemovableHandle, ...]:
        before, after = BeforeForward(self, path), AfterForward(self)
        return (
            module.register_forward_pre_hook(before, with_kwargs=True),
            # Also if it raised, so that no call goes on for ever.
            module.register_forward_hook(after, always_call=True),
        )

    def remove(self) -> None:
        """Leave no hook behind, and let go of the calls; safe to call twice."""
        self._let_go_of(list(self._handles))
        self._clear()

    def _let_go_of(self, paths: Iterable[str]) -> None:
        for path in paths:
            for handle in self._handles.pop(path, ()):
                handle.remove()

    def begin(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Keep one call.

        Args:
            path: The path of the module.
            module: The module.
            args: Its arguments.
            kwargs: Its arguments by name.
        """
        if self._running is not None and self._running is not module:
            self._inside.add(path)
            return
        if not torch.is_grad_enabled() or torch._C._get_tracing_state():
            return
        if torch._C._are_functorch_transforms_active():
            return
        self._running = module
        self._called.add(path)
        try:
            self._keep(Call(path, args, kwargs))
        except Exception:
            # A generator cannot be read while a CUDA graph is captured, for one.
            self.failures += 1

    def end(self, module: nn.Module, output: Any) -> None:
        """Wait for the gradients of what a call returned.

        Args:
            module: The module.
            output: What it returned; None if it raised.
        """
        if self._running is not module:
            return
        self._running = None
        if not self.kept:
            return
        if output is None:
            self.kept.pop()
            return
        call = weakref.ref(self.kept[-1])
        for i, tensor in enumerate(tensors_of(output)):
            # A hook on a leaf would stay; on a view whose base was changed in place
            # register_hook segfaults unless grad_fn was made anew (pytorch#196459).
            if tensor.requires_grad and tensor.grad_fn is not None:
                tensor.register_hook(_OutputGrad(call, i))

    def _keep(self, call: Call) -> None:
        versions = [p._version for p in self._sample]
        if versions != self._versions or self._gradients_are_gone():
            self._versions = versions
            self._clear()
            # What runs inside of a call needs no hooks of its own.
            self._let_go_of(self._inside - self._called)
            self._inside.clear()
        device = self._sample[0].device if self._sample else self._device
        call.versions = call.versions_now
        call.buffers = self._buffers_now()
        call.generators = get_generators(device)
        call.autocast = tuple(
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in {"cpu", device.type}
            if torch.amp.is_autocast_available(kind)
        )
        self.kept.append(call)
        self.seen += 1

    def _buffers_now(self) -> list[tuple[Tensor, int]]:
        there = [b for bs in self._buffers for b in bs.values() if b is not None]
        try:
            return [(buffer, buffer._version) for buffer in there]
        except RuntimeError:
            # Of an inference tensor; to ask each first takes twice as long.
            return [(buffer, version_of(buffer)) for buffer in there]

    def _gradients_are_gone(self) -> bool:
        return all(p.grad is None for p in self._sample) and any(
            call.grads for call in self.kept
        )

    def _clear(self) -> None:
        self.kept.clear()
        self.seen = 0


class BeforeForward:
    """The forward pre-hook of a call; copies and pickles of the model get an inert one.

    Args:
        calls: Whom to tell.
        path: The path of the module.
    """

    __slots__ = ("_calls", "_path")

    def __init__(self, calls: ForwardCalls, path: str) -> None:
        self._calls, self._path = calls, path

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        # A hook that Dynamo traced would break the graph, which fullgraph=True forbids.
        if not torch.compiler.is_compiling():
            self._calls.begin(self._path, module, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _inert()


class AfterForward:
    """The forward hook of a call; copies and pickles of the model get an inert one.

    Args:
        calls: Whom to tell.
    """

    __slots__ = ("_calls",)

    def __init__(self, calls: ForwardCalls) -> None:
        self._calls = calls

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._calls.end(module, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _inert()


class _OutputGrad:
    """The tensor hook of an output: keeps the gradient while its call is kept."""

    __slots__ = ("_call", "_place")

    def __init__(self, call: weakref.ref[Call], place: int) -> None:
        self._call, self._place = call, place

    def __call__(self, grad: Tensor | None) -> None:
        call = self._call()
        if grad is None or call is None:
            return
        grad = grad.detach()
        before = call.grads.get(self._place)
        # There may be two backward passes through one forward.
        call.grads[self._place] = grad if before is None else before + grad


def _inert() -> tuple[Any, ...]:
    # A method that takes three arguments, returns None and unpickles without gradlab.
    return getattr, (contextlib.nullcontext(), "__exit__")


def _called_children(model: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """The children; of a list of modules, which is not called, its children."""
    found = []
    for name, child in model.named_children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            found += _called_children(child, f"{path}{name}.")
        else:
            found.append((f"{path}{name}", child))
    return found
