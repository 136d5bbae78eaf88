"""The paths of a gradient: how much of it comes through each op of the forward.

    x̄ = Σ over the paths from x to y          x̄ₖ = (∂zₖ/∂x)ᵀ z̄ₖ,   z̄ₖ = (∂y/∂zₖ)ᵀ ȳ

x̄ₖ is the sum of the paths through zₖ, the result of op k, or one of its arguments. The
forward runs once; each x̄ₖ is a backward from zₖ with the z̄ₖ of one backward from y.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from typing_extensions import TypeIs

from gradlab.subject import (
    Subject,
    attempt,
    calls_recorded,
    functions,
    grad,
    largest_entry,
    no_grad_ignored,
    own_forward,
)

from ._evidence import Evidence, Proposal
from ._formulas import FORMULAS

MOST = 160
"""Forwards of more steps than this are not taken apart."""

Cut = tuple[int, int | None]
"""An op by its number and one of its arguments; None for its result."""

_OURS = os.path.dirname(os.path.dirname(__file__))
_HIDDEN = (
    os.path.dirname(torch.__file__),
    *(os.path.join(_OURS, part) for part in ("diagnoses", "subject", "checks")),
    os.path.join(_OURS, "_gradcheck.py"),
)


@dataclass(frozen=True)
class Step:
    """A place in the forward that gradients pass through.

    Attributes:
        op: The op, as `mean`, with the fused op that it is a part of.
        line: The user's line that called it.
        argument: Which argument of the op; None for its result.
        value: The tensor there.
        edge: The place in the graph.
        number: Which op it is, counted from the first.
    """

    op: str
    line: str
    argument: int | None
    value: Tensor
    edge: GradientEdge
    number: int

    @property
    def cut(self) -> Cut:
        """What `Paths.without` takes to leave the step out."""
        return self.number, self.argument

    def __str__(self) -> str:
        """The step in words, with its line."""
        what = f"`{self.op}`"
        if self.argument is not None:
            what = f"argument {self.argument} of {what}"
        return f"{what} ({self.line})" if self.line else what


@dataclass(frozen=True)
class Broadcast:
    """A tensor that an op broadcasts: its adjoint is a sum.

    Attributes:
        op: The op.
        line: The user's line.
        dims: What is broadcast, counted in the expanded tensor.
        before: The tensor.
        after: The same, expanded.
        shape: Of the tensor.
    """

    op: str
    line: str
    dims: tuple[int, ...]
    before: GradientEdge
    after: GradientEdge
    shape: torch.Size


@dataclass(frozen=True)
class Reduction(Broadcast):
    """A sum or mean whose result is broadcast again; `before` is its argument.

    Attributes:
        weight: The local derivative, 1, 1/n, or softmax for a logsumexp.
    """

    weight: float | Tensor


class Paths:
    """The forward of a subject, taken apart.

    Attributes:
        steps: Every place that gradients pass through, in order.
        broadcasts: Every tensor that an op broadcasts.
        reductions: Every sum and mean whose result is broadcast again.
    """

    def __init__(
        self,
        subject: Subject,
        place: int,
        body: Callable[..., Any],
        see_through: bool = False,
        cuts: Collection[Cut] = (),
    ) -> None:
        self._made_of = (subject, place, body, see_through)
        self._cuts = frozenset(cuts)
        recorder = _Recorder(see_through, self._cuts)

        def recorded(*args: Any) -> Any:
            copies = [a.clone() if isinstance(a, Tensor) else a for a in args]
            with recorder:
                return body(*copies)

        leaves = subject.fresh()
        with torch.enable_grad(), no_grad_ignored():
            self._outputs = subject.run(leaves, recorded)
        self._leaf = leaves[place]
        self.steps = recorder.steps
        self.broadcasts = recorder.broadcasts
        self.reductions = recorder.reductions

    def without(self, cuts: Iterable[Cut]) -> Paths:
        """The same forward with some places taken as constants.

        Args:
            cuts: The places.
        """
        return Paths(*self._made_of, self._cuts.union(cuts))

    def total(self, cotangents: tuple[Tensor, ...]) -> Tensor | None:
        """The whole gradient.

        Args:
            cotangents: A grad_output for each output.
        """
        return grad(self._outputs, [self._leaf], cotangents, retain_graph=True)[0]

    def adjoints(
        self, cotangents: tuple[Tensor, ...], edges: list[GradientEdge]
    ) -> tuple[Tensor | None, ...]:
        """z̄ at places in the graph.

        Args:
            cotangents: A grad_output for each output.
            edges: The places.
        """
        at: Any = edges
        return grad(self._outputs, at, cotangents, retain_graph=True)

    def back(self, edge: GradientEdge, adjoint: Tensor | None) -> Tensor | None:
        """What an adjoint at a place contributes to the gradient.

        Args:
            edge: The place.
            adjoint: z̄ there.
        """
        if adjoint is None:
            return None
        return torch.autograd.grad(
            [edge], [self._leaf], [adjoint], retain_graph=True, allow_unused=True
        )[0]


def paths(seen: Evidence) -> Paths | None:
    """Takes the forward apart, once.

    Args:
        seen: The evidence whose gradient is to be explained.

    Returns:
        The paths; None where the forward cannot be followed, or gives another gradient
        than the true one when it is.
    """
    cache = seen.__dict__
    if "_paths" not in cache:
        cache["_paths"] = _follow(seen)
    return cache["_paths"]


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
    body = _own_body(subject) or subject.call
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


def _follow(seen: Evidence) -> Paths | None:
    subject = seen.subject
    own = _own_body(subject)
    for body, see_through in ((own, False), (own, True), (subject.reference, False)):
        if body is None:
            continue
        found = _try(seen, body, see_through)
        if found is None:
            continue
        # A maximum that is subtracted and cancels is in no one's backward.
        idle = _idle_maxima(seen, found)
        if idle and (simpler := _try(seen, body, see_through, idle)) is not None:
            return simpler
        return found
    return None


def _try(
    seen: Evidence,
    body: Callable[..., Any],
    see_through: bool,
    cuts: Collection[Cut] = (),
) -> Paths | None:
    """The paths, if they add up to the true gradient."""
    found = attempt(lambda: Paths(seen.subject, seen.place, body, see_through, cuts))
    if not isinstance(found, Paths) or not 0 < len(found.steps) <= MOST:
        return None
    r = attempt(lambda: found.total(seen.cotangents[0]))
    if not isinstance(r, Tensor) or r.shape != seen.expected[0].shape:
        return None
    off = (r - seen.expected[0])[seen.comparable[0]]
    return found if largest_entry(off) <= seen.bounds[0] else None


def _idle_maxima(seen: Evidence, found: Paths) -> list[Cut]:
    """The maxima in the forward whose paths cancel."""
    steps = [s for s in found.steps if s.op.split("`")[0] in ("amax", "max")]
    results = [s for s in steps if s.argument is None]
    if not results:
        return []
    adjoints = found.adjoints(seen.cotangents[0], [s.edge for s in results])
    size = largest_entry(seen.expected[0])
    idle = []
    for step, adjoint in zip(results, adjoints, strict=True):
        t = found.back(step.edge, adjoint)
        if t is None or largest_entry(t) <= 1e-9 * size:
            idle.append(step.cut)
    return idle


def _own_body(subject: Subject) -> Callable[..., Any] | None:
    classes = functions(subject)
    if not classes:
        return subject.call
    with calls_recorded(classes) as calls:
        subject.run(subject.fresh())
    if len(calls) == 1 and len(calls[0].args) == len(subject.leaves):
        return own_forward(calls[0])
    return subject.call


class _Recorder(TorchFunctionMode):
    """Gives every argument and every result of an op its own place in the graph."""

    def __init__(self, see_through: bool, cuts: Collection[Cut]) -> None:
        super().__init__()
        self._see_through, self._cuts = see_through, cuts
        self._number = -1
        self.steps: list[Step] = []
        self.broadcasts: list[Broadcast] = []
        self.reductions: list[Reduction] = []
        self._reduced: dict[Any, tuple[Any, ...]] = {}
        self._fused = ""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        tracked = any(_tracked(a) for a in pytree.tree_leaves((args, kwargs)))
        if tracked and self._see_through:
            if name == "detach" or func == _DATA:
                return args[0].view_as(args[0])
            if isinstance(out := kwargs.pop("out", None), Tensor):
                with self:
                    return out.copy_(func(*args, **kwargs))
        if not tracked or name == "__get__" or len(self.steps) > MOST:
            return func(*args, **kwargs)
        if name in FORMULAS and not self._fused:
            result = self._spelled_out(name, func, args, kwargs)
            if result is not None:
                return result
        line = _users_line()
        op = name.strip("_")
        if self._fused:
            op = f"{op}`{_what()} inside `{self._fused}"
        self._number += 1
        args = self._aliased(name, op, line, args)
        result = func(*args, **kwargs)
        if (self._number, None) in self._cuts:
            return pytree.tree_map_only(Tensor, Tensor.detach, result)
        for z in pytree.tree_leaves(result):
            if _tracked(z):
                self._add(op, line, None, z)
        self._note_reduction(name, op, line, args, result)
        return result

    def _spelled_out(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        with torch.no_grad():
            value = func(*args, **kwargs)
        count, self._fused = len(self.steps), name
        try:
            with self:
                result = FORMULAS[name](*args, **kwargs)
        except Exception:
            result = None
        finally:
            self._fused = ""
        if isinstance(result, Tensor) and result.shape == value.shape:
            with torch.no_grad():
                off = (result - value).abs().nan_to_num().max()
                if off <= 1e-9 * value.abs().nan_to_num().max():
                    return result
        del self.steps[count:]
        return None

    def _aliased(self, name: str, op: str, line: str, args: Any) -> Any:
        # What an in-place op writes to must stay itself.
        writes = name.endswith("_") or name.startswith("__i") or name == "__setitem__"
        shape = None if writes else _common_shape(name, args)
        aliased = []
        for index, a in enumerate(args):
            if _tracked(a) and not (writes and index == 0):
                if shape is not None and a.shape != shape:
                    a = self._broadcast(op, line, a, shape)
                if (self._number, index) in self._cuts:
                    aliased.append(a.detach())
                    continue
                # What is written to later must not be what was saved.
                a = a.clone() if self._see_through else a.view_as(a)
                self._add(op, line, index, a)
            aliased.append(a)
        return tuple(aliased)

    def _add(self, op: str, line: str, argument: int | None, t: Tensor) -> None:
        edge = get_gradient_edge(t)
        self.steps.append(Step(op, line, argument, t.detach(), edge, self._number))

    def _broadcast(self, op: str, line: str, a: Tensor, shape: torch.Size) -> Tensor:
        before, whole = get_gradient_edge(a), a.expand(shape)
        after = get_gradient_edge(whole)
        dims = _expanded_dims(a.shape, shape)
        self.broadcasts.append(Broadcast(op, line, dims, before, after, a.shape))
        if (before.node, before.output_nr) in self._reduced:
            op, line, dims, argument, at, weight = self._reduced[
                before.node, before.output_nr
            ]
            if at == shape:
                self.reductions.append(
                    Reduction(op, line, dims, argument, after, at, weight)
                )
        return whole

    def _note_reduction(
        self, name: str, op: str, line: str, args: Any, result: Any
    ) -> None:
        x = args[0] if args else None
        if (
            name not in ("sum", "mean", "logsumexp")
            or not _tracked(x)
            or not _tracked(result)
        ):
            return
        if x.ndim != result.ndim or x.shape == result.shape:
            return
        dims = _expanded_dims(result.shape, x.shape)
        weight: float | Tensor = 1.0
        if name == "mean":
            weight = result.numel() / x.numel()
        elif name == "logsumexp":
            weight = torch.exp(x.detach() - result.detach())
        edge = get_gradient_edge(result)
        self._reduced[edge.node, edge.output_nr] = (
            *(op, line, dims, get_gradient_edge(x), x.shape, weight),
        )


_BROADCASTING = ("add", "sub", "mul", "div", "truediv", "rsub", "rtruediv")


def _common_shape(name: str, args: Any) -> torch.Size | None:
    """The shape of the result, of an op that broadcasts its arguments."""
    if name.strip("_") not in _BROADCASTING:
        return None
    shapes = [a.shape for a in args if isinstance(a, Tensor)]
    return torch.broadcast_shapes(*shapes) if len(shapes) > 1 else None


def _expanded_dims(small: torch.Size, large: torch.Size) -> tuple[int, ...]:
    padded = (1,) * (len(large) - len(small)) + tuple(small)
    return tuple(d for d, n in enumerate(padded) if n != large[d])


class _Constants(TorchFunctionMode):
    """Finds the small numbers that ops are called with, and sets one of them to 0."""

    def __init__(self, largest: float, zeroed: int | None) -> None:
        super().__init__()
        self.found: list[tuple[float, str]] = []
        self._largest, self._zeroed = largest, zeroed

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        line = _users_line()

        def replaced(a: Any) -> Any:
            if not isinstance(a, float) or not 0 < a <= self._largest:
                return a
            self.found.append((a, line))
            return 0.0 if len(self.found) - 1 == self._zeroed else a

        args, kwargs = pytree.tree_map(replaced, (args, kwargs or {}))
        return func(*args, **kwargs)


_DATA = vars(torch._C.TensorBase)["data"].__get__


def _tracked(value: Any) -> TypeIs[Tensor]:
    return isinstance(value, Tensor) and value.requires_grad


def _what() -> str:
    """What a formula calls the value that it is computing."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.endswith("_formulas.py"):
        frame = frame.f_back
    if frame is None:
        return ""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f" ({line.split(' = ')[0]})" if " = " in line else ""


def _users_line() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith((*_HIDDEN, "<frozen")):
            text = linecache.getline(filename, frame.f_lineno).strip()
            place = f"{os.path.basename(filename)}:{frame.f_lineno}"
            return f"{place}: `{text}`" if text else place
        frame = frame.f_back
    return ""
