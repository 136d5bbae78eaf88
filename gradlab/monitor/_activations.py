"""Taps on the outputs of modules: what flows forward, and the gradient that comes back.

A forward hook measures the output and leaves a tensor hook on it, which measures the
gradient and books the two together. What no gradient comes back to is never booked: a
forward without grad, the first one of a reentrant checkpoint, the recomputed one of the
other kind, a forward that raised.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils.hooks import RemovableHandle

from ..quantities import Moment, Quantity, active_units
from ._calls import Calls, Numbers, measured
from ._watched import Watched, gradient_carrier, unit_axis


class ActivationTaps:
    """Forward hooks on modules, measured on sampled steps only.

    Args:
        model: The model; while it is in evaluation mode nothing is measured.
        watched: The modules.
        quantities: What to measure, of the feed `activation`.
        due: Asked at the first output of a step whether the step is to be read.
        updates: A number that changes when a step has ended, read or skipped.

    Attributes:
        sampling: Whether outputs are measured; None until `due` was asked.
        booked: Whether a backward pass has reached an output.
        calls: What was measured, by name, in the order of the forward.
    """

    def __init__(
        self,
        model: nn.Module,
        watched: Iterable[Watched],
        quantities: Sequence[Quantity],
        due: Callable[[], bool],
        updates: Callable[[], int] = int,
    ) -> None:
        self.quantities = tuple(quantities)
        self.sampling: bool | None = None
        self.epoch = 0
        self.calls: dict[str, Calls] = {}
        self.failed: set[str] = set()
        self._model = model
        self._due = due
        self._updates = updates
        self._begun = 0
        self.booked = False
        self._axes: dict[torch.Size, int] = {}
        self._modules = dict(watched)
        self._moments = {
            name: self._needed(module) for name, module in self._modules.items()
        }
        self._handles: list[RemovableHandle] = []
        self.restore()
        if compiled := _compiled(model):
            warnings.warn(
                "activations are watched by hooks, which torch.compile must find when "
                f"it traces a module; got {compiled}, compiled before the monitor was "
                "made: its activations may be missing. Make the monitor first, then "
                "compile",
                UserWarning,
                stacklevel=4,
            )

    def restore(self) -> None:
        """Hook the modules, unless they are."""
        if not self._handles:
            self._handles = [
                module.register_forward_hook(OutputHook(self, name))
                for name, module in self._modules.items()
            ]
            self.restart()

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.restart(False)

    def restart(self, sampling: bool | None = None) -> None:
        """Forget what was measured.

        Args:
            sampling: Whether to measure what follows; None asks at the next output.
        """
        self.calls = {}
        self.epoch += 1
        self.sampling = sampling
        self.booked = False

    def moments_of(self, name: str) -> tuple[tuple[Moment, ...] | None, ...]:
        """What each quantity needs of a module; None where it has no meaning.

        Args:
            name: The name of the module's row.
        """
        module = self._modules[name]
        return tuple(q.moments_of(module) for q in self.quantities)

    def on_output(self, name: str, module: nn.Module, output: object) -> None:
        """Measure one output, and its gradient when it comes.

        Args:
            name: The name of the module's row.
            module: The module.
            output: What it returned.
        """
        if not self._model.training or torch._C._get_tracing_state():
            return
        if self.sampling is None:
            self.sampling = self._due()
        if not self.sampling:
            return
        if not self.calls:
            self._begun = self._updates()
        elif self.booked and (
            self._begun != self._updates() or _between_steps(self._model)
        ):
            # A step that GradScaler skipped never reached the optimizer.
            self.restart(True)
            self._begun = self._updates()
        # Also where grad is off: a checkpoint runs its modules again in reverse.
        calls = self.calls.get(name)
        if calls is None:
            calls = self.calls[name] = Calls(self._moments[name])
        if not torch.is_grad_enabled() or name in self.failed:
            return
        tensor = gradient_carrier(output)
        if tensor is None:
            return
        try:
            self._measure(name, module, calls, tensor)
        except Exception as error:
            self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
        """Say once that a module cannot be measured, and leave it alone from then on.

        Args:
            name: The name of the module's row.
            error: Why.
        """
        if name not in self.failed:
            self.failed.add(name)
            warnings.warn(
                f"the output of {name} must be a tensor that can be measured; this "
                f"raised {type(error).__name__}: {error}. Training goes on without its "
                "activations",
                RuntimeWarning,
                stacklevel=2,
            )
        self.calls.pop(name, None)

    def _measure(
        self, name: str, module: nn.Module, calls: Calls, tensor: Tensor
    ) -> None:
        value = tensor.detach()
        axis = None
        if calls.of_units:
            axis = unit_axis(module, value, self._axes.get(value.shape))
            if axis is not None:
                self._axes[value.shape] = axis
        numbers = measured(calls.of_values, value)
        units = None if axis is None else active_units(value, axis)
        hook = _GradientHook(self, name, calls, value.numel(), numbers, units, axis)
        # Of a view whose base was changed in place, register_hook segfaults unless its
        # grad_fn was made anew (pytorch#196459).
        _ = tensor.grad_fn
        tensor.register_hook(hook)

    def _needed(self, module: nn.Module) -> list[Moment]:
        lists = (quantity.moments_of(module) for quantity in self.quantities)
        return list(dict.fromkeys(m for moments in lists for m in moments or ()))


class OutputHook:
    """The forward hook of one module; copies and pickles of the model get an inert one.

    Args:
        taps: Whom to tell.
        name: The name of the module's row.
    """

    __slots__ = ("_name", "_taps")

    def __init__(self, taps: ActivationTaps, name: str) -> None:
        self._taps = taps
        self._name = name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._taps.sampling is not False:
            _on_output(self._taps, self._name, module, output)

    def __reduce__(self) -> tuple[Any, ...]:
        # A method that takes three arguments, returns None and unpickles without
        # gradlab.
        return getattr, (contextlib.nullcontext(), "__exit__")


class _GradientHook:
    """The tensor hook of one output: measures the gradient, books it with the value."""

    __slots__ = (
        *("_axis", "_calls", "_count", "_epoch"),
        *("_name", "_numbers", "_taps", "_units"),
    )

    def __init__(
        self,
        taps: ActivationTaps,
        name: str,
        calls: Calls,
        count: int,
        numbers: Numbers,
        units: Tensor | None,
        axis: int | None,
    ) -> None:
        self._taps = taps
        self._epoch = taps.epoch
        self._name = name
        self._calls = calls
        self._count = count
        self._numbers = numbers
        self._units = units
        self._axis = axis

    def __call__(self, grad: Tensor | None) -> None:
        if grad is None or self._epoch != self._taps.epoch:
            return
        try:
            self._book(grad.detach())
        except Exception as error:
            self._taps.fail(self._name, error)

    def _book(self, grad: Tensor) -> None:
        units = None
        if self._units is not None and self._axis is not None:
            units = self._units, active_units(grad, self._axis)
        numbers = measured(self._calls.of_grads, grad)
        self._calls.add(self._count, {**self._numbers, **numbers}, units)
        self._taps.booked = True


@_disable_dynamo
def _on_output(
    taps: ActivationTaps, name: str, module: nn.Module, output: object
) -> None:
    taps.on_output(name, module, output)


def _between_steps(model: nn.Module) -> bool:
    """Whether gradients were set to None since the last backward pass."""
    if torch._C._current_graph_task_id() != -1:
        return False
    parameters = (p for p in model.parameters() if p.requires_grad)
    # FSDP2 keeps gradients elsewhere while it accumulates.
    return all(p.grad is None and not hasattr(p, "full_tensor") for p in parameters)


def _compiled(model: nn.Module) -> str | None:
    for path, module in model.named_modules():
        in_place = getattr(module, "_compiled_call_impl", None) is not None
        if in_place or any(
            k.__name__ == "OptimizedModule" for k in type(module).__mro__
        ):
            return path or type(module).__name__
    return None
