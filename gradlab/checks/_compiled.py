"""torch.compile keeps the gradient."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gradlab._report import Level
from gradlab.subject import (
    Crash,
    Mismatch,
    NotChecked,
    Subject,
    Tensors,
    attempt,
    functions,
    grad,
    largest_entry,
)

from ._refusal import lacks_setup_context

_CODE = "compiled"
_Call = Callable[..., Any]


@dataclass(frozen=True)
class Compiled:
    """compile(f) has the outputs and the gradients of f, backend `aot_eager`.

    Two traps are torch's own, and notes: the same tensor passed twice (pytorch#183604),
    and torch.func.grad under compile, which drops custom backwards (pytorch#193279).
    The second takes as long as all the rest; `func` says whether to look for it.
    """

    level: Level = "contract"
    opt_in: bool = True
    func: bool = True

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields an error for another result, notes for what does not compile."""
        classes = functions(subject)
        if not classes:
            return
        eager = _results(subject, subject.call, subject.fresh())
        if not subject.random_state.same():
            raise NotChecked("it draws random numbers, and compiled code draws others")
        with _quiet_dynamo():
            compiled = torch.compile(subject.call, backend="aot_eager")
            found = attempt(lambda: _results(subject, compiled, subject.fresh()))
            breaks = list(torch._dynamo.utils.counters["graph_break"])
            if isinstance(found, Crash):
                yield _note(f"torch.compile raises {found}")
                return
            if breaks:
                yield _note(
                    f"torch.compile breaks the graph: {breaks[0].splitlines()[0]}"
                )
            if wrong := _difference(subject, found, eager):
                yield Mismatch(
                    _CODE,
                    "error",
                    f"torch.compile changes {wrong}",
                    hint="does the code ask torch.compiler.is_compiling(), or keep "
                    "state outside of ctx?",
                    subject=subject,
                )
                return
            yield from _same_twice(subject, compiled)
            real = not any(y.is_complex() for y in subject.outputs)
            if self.func and real and not lacks_setup_context(classes):
                yield from _func_grad(subject)


def _same_twice(subject: Subject, compiled: _Call) -> Iterator[Mismatch]:
    pair = _alike(subject.tensors)
    if pair is None:
        return
    first, second = pair

    def run(call: _Call) -> Tensors:
        leaves = subject.fresh()
        leaves[second] = leaves[first]
        return _results(subject, call, leaves)

    eager, found = attempt(lambda: run(subject.call)), attempt(lambda: run(compiled))
    if isinstance(eager, Crash) or isinstance(found, Crash):
        return
    if wrong := _difference(subject, found, eager):
        yield _note(
            f"with one tensor as two inputs, torch.compile changes {wrong}; that is "
            "torch's own (pytorch#183604)"
        )


def _func_grad(subject: Subject) -> Iterator[Mismatch]:
    def loss(*xs: Tensor) -> Tensor:
        args = list(subject.leaves)
        for place, x in zip(subject.places, xs, strict=True):
            args[place] = x
        ys = [y for y in pytree.tree_leaves(subject.call(*args)) if _is_float(y)]
        kept = [y for y, keep in zip(ys, subject.differentiable, strict=True) if keep]
        pairs = zip(subject.cotangents[0], kept, strict=True)
        # ⟨ȳ, y⟩, since torch.func.grad wants a scalar.
        return sum(((v * y).sum() for v, y in pairs), torch.zeros(()))

    def run(compiling: bool) -> Tensors:
        count = len(subject.places)
        f = torch.func.grad(loss, tuple(range(count)))
        f = torch.compile(f, backend="aot_eager") if compiling else f
        return tuple(f(*(x.clone() for x in subject.tensors)))

    eager = attempt(lambda: run(False))
    found = attempt(lambda: run(True))
    if isinstance(eager, Crash) or isinstance(found, Crash):
        return
    if wrong := _difference(subject, found, eager):
        yield _note(
            f"torch.compile(torch.func.grad(f)) changes {wrong}: torch drops custom "
            "backwards there (pytorch#193279)"
        )


def _results(subject: Subject, call: _Call, leaves: Sequence[Tensor]) -> Tensors:
    ys = subject.run(leaves, call)
    found = grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])
    pairs = zip(found, leaves, strict=True)
    grads = (torch.zeros_like(x) if g is None else g for g, x in pairs)
    return (*(y.detach() for y in ys), *grads)


def _difference(subject: Subject, found: Tensors, expected: Tensors) -> str:
    """What differs first, in words."""
    gradients = [f"the gradient of {name}" for name in subject.input_names]
    count = len(expected) - len(gradients)
    names = [f"output {i}" for i in range(count)] + gradients
    for name, ours, right in zip(names, found, expected, strict=True):
        if ours.shape != right.shape:
            return f"the shape of {name}"
        size = largest_entry(right) or 1.0
        if bool((ours.isfinite() != right.isfinite()).any()):
            return f"{name}: other entries are finite"
        error = largest_entry(ours - right) / size
        if error > 10 * subject.tolerance:
            return f"{name} by {error:.2g} of its largest entry"
    return ""


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _alike(tensors: Tensors) -> tuple[int, int] | None:
    for i, x in enumerate(tensors):
        for j, y in enumerate(tensors[:i]):
            if x.shape == y.shape and x.dtype == y.dtype:
                return j, i
    return None


def _note(message: str) -> Mismatch:
    return Mismatch(_CODE, "note", message, verdict="correct")


@contextmanager
def _quiet_dynamo() -> Iterator[None]:
    """Inside, Dynamo starts afresh and says nothing; afterwards it has forgotten."""
    import torch._dynamo  # the first use takes a second

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch._dynamo.reset()
