"""One call of a watched module, from its output to the gradient that comes back."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..quantities import active_units
from ._activation_sample import has_all_units, sampled

if TYPE_CHECKING:
    from ._activations import Tap


class Call:
    """What is kept of a call once its gradient has come: samples, no activation.

    Args:
        of: The hook of its output.
        grad: A sample of the gradient; None if nothing is measured of it.

    Attributes:
        tap: Of which module.
        count: How many entries the output has.
        value: A sample of them; None if nothing is measured of it.
        into: A sample of the gradient of the module's input, as far as it is this
            call's; None if it did not come or nothing is measured of it.
        units: Which units had a nonzero output, and which a nonzero gradient, if
            all of both was looked at.
    """

    __slots__ = ("count", "grad", "into", "of", "tap", "units", "value")

    def __init__(self, of: GradientHook, grad: Tensor | None) -> None:
        self.of = of
        self.tap = of.tap
        self.count = of.count
        self.value = of.value
        self.grad = grad
        self.into: Tensor | None = None
        self.units: tuple[Tensor, Tensor] | None = None


class GradientHook:
    """The tensor hook of one output: makes a `Call` of it when its gradient comes.

    Args:
        tap: The tap of the module.
        tensor: The output, detached.
        axis: Where its units are; None if their activity is not measured.

    Attributes:
        call: The last call made.
        complex: Whether the output is.
        covered: Whether samples of the output and its gradient have all units.
        width: How many units there are.
    """

    __slots__ = (
        *("axis", "call", "complex", "count", "covered", "epoch"),
        *("tap", "units", "value", "width"),
    )

    def __init__(self, tap: Tap, tensor: Tensor, axis: int | None) -> None:
        self.tap = tap
        self.epoch = tap.taps.epoch
        self.count = tensor.numel()
        self.complex = tensor.is_complex()
        self.value = sampled(tensor) if tap.kind.of_value else None
        self.call: Call | None = None
        self.axis = axis
        self.units: Tensor | None = None
        if axis is not None:
            self.width = tensor.shape[axis]
            self.covered = has_all_units(tensor, axis)
            if tap.closely:
                self.units = active_units(tensor, axis)

    def __call__(self, grad: Tensor | None) -> None:
        tap = self.tap
        if grad is None or self.epoch != tap.taps.epoch:
            return
        start = perf_counter()
        try:
            if grad.requires_grad:
                grad = grad.detach()
            call = Call(self, sampled(grad) if tap.kind.of_grad else None)
            if self.axis is not None:
                self.covered = self.covered and has_all_units(grad, self.axis)
                if self.units is not None:
                    call.units = self.units, active_units(grad, self.axis)
            self.call = call
            taps = tap.taps
            taps.came.append(call)
            if len(taps.came) >= taps.kept:
                taps.measure_some()
        except Exception as error:
            tap.taps.fail(tap, error)
        tap.taps.seconds += perf_counter() - start


class InputHook:
    """The hook on a node of the graph: what the module sends back to its input.

    Other consumers of the input add to the gradient later, on its own node.

    Args:
        of: The hook of the output.
        index: Which of the node's inputs is the module's.
    """

    __slots__ = ("_index", "_of")

    def __init__(self, of: GradientHook, index: int) -> None:
        self._of = of
        self._index = index

    def __call__(self, grads_in: tuple[Tensor | None, ...], grads_out: Any) -> None:
        call, tap = self._of.call, self._of.tap
        grad = grads_in[self._index]
        if grad is None or call is None or self._of.epoch != tap.taps.epoch:
            return
        start = perf_counter()
        try:
            kept = sampled(grad.detach())
            # Used twice, as in x · σ(x), it has a part from each.
            call.into = kept if call.into is None else call.into.add_(kept)
        except Exception as error:
            tap.taps.fail(tap, error)
        tap.taps.seconds += perf_counter() - start


def edges_into(start: Any, node: Any, index: int) -> list[tuple[Any, int]]:
    """Where a graph goes into one input of a node.

    Args:
        start: The node of an output.
        node: The node that made the input of the module, or accumulates its gradient.
        index: Which of the outputs of that node the input is.

    Returns:
        The nodes before it, each with the place of the edge; empty if there is none, or
        if it is not a small graph, of a few operations, in between.
    """
    found: list[tuple[Any, int]] = []
    seen, todo = {start}, [start]
    while todo:
        one = todo.pop()
        for place, (after, k) in enumerate(one.next_functions):
            if after is node and k == index:
                found.append((one, place))
            elif after is not None and after not in seen:
                seen.add(after)
                todo.append(after)
        if len(seen) > _SMALL:
            return []
    return found


_SMALL = 32
