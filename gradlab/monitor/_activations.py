"""Taps on the outputs of modules: what flows forward, and the gradient that comes back.

A forward hook takes a sample of the output and leaves a tensor hook on it, which takes
one of the gradient and books the two together; the numbers are computed when the step
is read, of all modules at once. What no gradient comes back to is never booked: a
forward without grad, the first one of a reentrant checkpoint, the recomputed one of the
other kind, a forward that raised.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.autograd.graph import get_gradient_edge
from torch.compiler import is_dynamo_compiling
from torch.utils.hooks import RemovableHandle

from .._snapshot import Row
from ..quantities import Quantity
from ._activation_sums import ActivationSums, Kind
from ._calls import Call, GradientHook, InputHook, edges_into
from ._unit_activity import add_units
from ._watched import Watched, carries_gradient, gradient_carrier, unit_axis


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
        epoch: Counts the readings: what was called before one is not booked after it.
        taps: One a module, in the order of the model.
        order: The modules that were called, in the order of the forward.
        came: Calls to whose outputs the gradient has come, not yet measured.
        kept: At how many of them some are measured.
        sums: What the others add up to.
        seconds: How long measuring took in the hooks, until it is set back.
    """

    def __init__(
        self,
        model: nn.Module,
        watched: Iterable[Watched],
        quantities: Sequence[Quantity],
        due: Callable[[], bool],
        updates: Callable[[], int] = int,
    ) -> None:
        self.sampling: bool | None = None
        self.seconds = 0.0
        self._traced = False
        self.epoch = 0
        self.order: list[Tap] = []
        watched = list(watched)
        self.sums = ActivationSums([w.module for w in watched], quantities)
        self._model = model
        self._due = due
        self._updates = updates
        self._begun = 0
        self.came: list[Call] = []
        self.kept = max(_KEPT, 4 * len(watched))
        self._seen = 0
        self._axes: dict[torch.Size, int] = {}
        self._on_leaves: list[RemovableHandle] = []
        self._handles: list[RemovableHandle] = []
        self._modules = [w.module for w in watched]
        kinds = self.sums.kinds
        self.taps = [
            Tap(self, Row(w.name, "layer"), i, kinds[i]) for i, w in enumerate(watched)
        ]
        self._looks = any(kind.of_input for kind in kinds)
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
        if self._handles:
            return
        for tap, module in zip(self.taps, self._modules, strict=True):
            self._handles.append(module.register_forward_hook(tap))
            if tap.kind.of_input:
                hook = module.register_forward_pre_hook(InputTap(tap))
                self._handles.append(hook)
        self.restart()

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.restart(False)

    def rest(self) -> None:
        """Take the hooks off for some steps, unless `torch.compile` must find them."""
        if self._handles and not self._traced and _compiled(self._model) is None:
            self.remove()

    def traced(self) -> None:
        """`torch.compile` has found the hooks: from now on they stay."""
        self._traced = True

    def restart(self, sampling: bool | None = None) -> None:
        """Forget what was measured.

        Args:
            sampling: Whether to measure what follows; None asks at the next output.
        """
        self.epoch += 1
        measured, self.sampling = self.sampling, sampling
        if not measured:
            return
        self._seen = 0
        self.came.clear()
        if self._looks:
            for tap in self.taps:
                # Of a forward that raised: it would keep its graph.
                tap.edge = None
        self.order.clear()
        self.sums.clear()
        for handle in self._on_leaves:
            handle.remove()
        self._on_leaves.clear()

    def due(self) -> bool:
        """Whether what runs now is measured."""
        if not self._model.training or _within() is not None or _tracing() is not None:
            return False
        if self.sampling is None:
            self.sampling = self._due()
        return self.sampling

    def on_output(self, tap: Tap, module: nn.Module, output: object) -> None:
        """Measure one output, and its gradient when it comes.

        Args:
            tap: The tap of the module.
            module: The module.
            output: What it returned.
        """
        edge, tap.edge = tap.edge, None
        if not self.due() or tap.failed:
            return
        start = perf_counter()
        self._on_output(tap, module, output, edge)
        self.seconds += perf_counter() - start

    def _on_output(
        self, tap: Tap, module: nn.Module, output: object, edge: Any | None
    ) -> None:
        if not self.order:
            self._begun = self._updates()
        elif len(self.came) != self._seen and torch._C._current_graph_task_id() == -1:
            # Looked at once after a backward pass.
            self._seen = len(self.came)
            if self._begun != self._updates() or _between_steps(self._model):
                # A step that GradScaler skipped never reached the optimizer.
                self.restart(True)
                self._begun = self._updates()
        if tap.epoch != self.epoch:
            # Also where grad is off: a checkpoint runs its modules again in reverse.
            tap.begin(self.epoch)
            self.order.append(tap)
        if not torch.is_grad_enabled():
            return
        tensor = output if type(output) is Tensor else gradient_carrier(output)
        if tensor is None or not carries_gradient(tensor):
            return
        try:
            self._measure(tap, module, tensor, edge)
        except Exception as error:
            self.fail(tap, error)

    def measure_some(self) -> None:
        """Measure the older half of the calls that have come.

        To the inputs of the others the gradient may not have come yet.
        """
        half = self.kept // 2
        old, self.came = self.came[:half], self.came[half:]
        self._add(old)

    def gather(self) -> ActivationSums:
        """What all calls so far add up to."""
        calls, self.came = self.came, []
        self._add(calls)
        return self.sums

    def fail(self, tap: Tap, error: Exception) -> None:
        """Say once that a module cannot be measured, and leave it alone from then on.

        Args:
            tap: The tap of the module.
            error: Why.
        """
        if not tap.failed:
            tap.failed = True
            warnings.warn(
                f"the output of {tap.row.name} must be a tensor that can be measured; "
                f"this raised {type(error).__name__}: {error}. Training goes on "
                "without its activations",
                RuntimeWarning,
                stacklevel=2,
            )

    def _add(self, calls: Sequence[Call]) -> None:
        try:
            self.sums.add(calls)
            add_units(calls)
            return
        except Exception as error:
            if len(calls) == 1:
                self.fail(calls[0].tap, error)
                return
        # One of them cannot be measured.
        for call in calls:
            if not call.tap.failed:
                self._add([call])

    def _measure(
        self, tap: Tap, module: nn.Module, tensor: Tensor, edge: Any | None
    ) -> None:
        value = tensor.detach()
        axis = None
        if tap.kind.of_units:
            axis = unit_axis(module, value, self._axes.get(value.shape))
            if axis is not None:
                self._axes[value.shape] = axis
        hook = GradientHook(tap, value, axis)
        # Of a view whose base was changed in place, register_hook segfaults unless its
        # grad_fn was made anew (pytorch#196459).
        node = tensor.grad_fn
        handle = tensor.register_hook(hook)
        if node is None:
            # A parameter, or the batch: it outlives the step.
            self._on_leaves.append(handle)
        elif edge is not None:
            for before, index in edges_into(node, *edge):
                before.register_hook(InputHook(hook, index))


class Tap:
    """The forward hook of one module; copies and pickles of the model get an inert one.

    Args:
        taps: Whom to tell.
        row: The module's row.
        index: Its place among the watched modules.
        kind: What is measured of it.

    Attributes:
        epoch: When it was last called.
        edge: Where the gradient of the input that is being worked on goes.
        failed: Whether it could not be measured.
        closely: Whether all of its outputs is looked at for units that are active, as
            some are not in a sample.
        units: Which units had a nonzero output, and which a nonzero gradient, in the
            step so far; None where that is not known.
    """

    __slots__ = (
        *("_unlike", "closely", "edge", "epoch", "failed", "index", "kind"),
        *("row", "taps", "units"),
    )

    def __init__(self, taps: ActivationTaps, row: Row, index: int, kind: Kind) -> None:
        self.taps = taps
        self.row = row
        self.index = index
        self.kind = kind
        self.edge: Any | None = None
        self.failed = False
        self.closely = False
        self.begin(-1)

    def begin(self, epoch: int) -> None:
        """Forget the step before.

        Args:
            epoch: Which one begins.
        """
        self.epoch = epoch
        self.units: tuple[Tensor, Tensor] | None = None
        self._unlike = False

    def add_units(self, output: Tensor, grad: Tensor) -> None:
        """Add the activity of one call.

        Args:
            output: Which units had a nonzero output.
            grad: Which had a nonzero gradient.
        """
        if self._unlike:
            return
        if self.units is None:
            self.units = output, grad
        elif self.units[0].shape == output.shape:
            self.units = self.units[0] | output, self.units[1] | grad
        else:
            # Calls with other numbers of units have no units in common.
            self.forget_units()

    def forget_units(self) -> None:
        """Say of no unit of this step whether it was active."""
        self.units, self._unlike = None, True

    def on_input(self, args: Sequence[object]) -> None:
        """Keep where the gradient of the input goes, until the output is there.

        Args:
            args: What the module is called with.
        """
        self.edge = None
        if args and torch.is_grad_enabled() and self.taps.due():
            x = args[0]
            if isinstance(x, Tensor) and x.requires_grad:
                node = x.grad_fn
                self.edge = (
                    get_gradient_edge(x)[:2] if node is None else (node, x.output_nr)
                )

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.taps.sampling is not False:
            if is_dynamo_compiling():
                _on_output(self, module, output)
            else:
                self.taps.on_output(self, module, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _INERT


class InputTap:
    """The hook before a module's forward: where the gradient of its input goes.

    An activation in place makes another tensor of the input, so it is asked before.

    Args:
        tap: The tap of the module.
    """

    __slots__ = ("_tap",)

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def __call__(self, module: nn.Module, args: Any) -> None:
        if self._tap.taps.sampling is not False:
            if is_dynamo_compiling():
                _on_input(self._tap, args)
            else:
                self._tap.on_input(args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _INERT


# A method that takes any three arguments, or two, returns None and unpickles without
# gradlab.
_INERT = getattr, (contextlib.nullcontext(), "__exit__")
_KEPT = 512
# Within a trace, and within torch.func, tensors are no tensors.
_tracing = torch._C._get_tracing_state
_within = torch._C._functorch.peek_interpreter_stack  # pyright: ignore[reportAttributeAccessIssue]


@_disable_dynamo
def _on_output(tap: Tap, module: nn.Module, output: object) -> None:
    tap.taps.traced()
    tap.taps.on_output(tap, module, output)


@_disable_dynamo
def _on_input(tap: Tap, args: Sequence[object]) -> None:
    tap.on_input(args)


def _between_steps(model: nn.Module) -> bool:
    """Whether gradients were set to None since the last backward pass."""
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
