"""What a forward does, op by op: where gradients pass, and what is broadcast.

torch hands every op of the forward to a `TorchFunctionMode`, which gives each argument
and each result its own place in the graph, so that its adjoint can be asked for.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ._formulas import FORMULAS

if TYPE_CHECKING:
    from typing_extensions import TypeIs

MOST = 160
"""Forwards of more steps than this are not taken apart."""

Cut = tuple[int, int | None]
"""An op by its number and one of its arguments; None for its result."""

_OURS = os.path.dirname(os.path.dirname(__file__))
_HIDDEN = (
    os.path.dirname(torch.__file__),
    *(
        os.path.join(_OURS, part)
        for part in ("diagnoses", "subject", "checks", "points")
    ),
    os.path.join(_OURS, "_run.py"),
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


class Recorder(TorchFunctionMode):
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
        line = users_line()
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


def users_line() -> str:
    """Where in the user's code the op was called: file, line and text."""
    frame = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith((*_HIDDEN, "<frozen")):
            text = linecache.getline(filename, frame.f_lineno).strip()
            place = f"{os.path.basename(filename)}:{frame.f_lineno}"
            return f"{place}: `{text}`" if text else place
        frame = frame.f_back
    return ""
