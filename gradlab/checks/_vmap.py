"""A batch of points, or of grad_outputs, gives what a loop over it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import (
    Crash,
    FunctionClass,
    Grads,
    Mismatch,
    Subject,
    Tensors,
    attempt,
    functions,
    grad,
    largest_entry,
)

from ._refusal import lacks_setup_context, raised_inside

_CODE = "vmap"


@dataclass(frozen=True)
class Vmap:
    """f of a batch (X₁, X₂) is (f(X₁), f(X₂)), its gradient (X̄₁, X̄₂); so for ȳ alone.

    `torch.func.vmap` needs a rule, `generate_vmap_rule` or a `vmap` of one's own; a
    stack of ȳ (`is_grads_batched`) only needs a backward of ops that can be batched.
    Without them torch says so, which is a note.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields an error for another value, and one note for what is not there."""
        classes = functions(subject)
        if not classes:
            return
        absent = []
        lacking = _lacks_rule(classes)
        if lacks_setup_context(classes):
            pass  # FuncGrad says so: nothing of torch.func runs it.
        elif lacking:
            absent.append(f"torch.func.vmap has no rule for {', '.join(lacking)}")
        else:
            yield from _over_inputs(subject, classes)
        stacked = attempt(lambda: _stacked_cotangents(subject))
        if isinstance(stacked, Crash):
            absent.append(f"is_grads_batched=True raises {stacked}")
        else:
            one, two = (_zeros(g, subject.tensors) for g in subject.gradients)
            looped = tuple(map(torch.stack, zip(one, two, strict=True)))
            yield from _differences(subject, stacked, looped, "a stack of grad_outputs")
        if absent:
            yield Mismatch(
                _CODE,
                "note",
                "; ".join(absent),
                verdict="correct",
                hint="generate_vmap_rule = True, which needs setup_context"
                if lacking
                else "",
            )


def _lacks_rule(classes: Sequence[FunctionClass]) -> list[str]:
    unset = torch.autograd.Function.vmap
    return [
        cls.__name__
        for cls in classes
        if not cls.generate_vmap_rule and cls.vmap is unset
    ]


def _over_inputs(
    subject: Subject, classes: Sequence[FunctionClass]
) -> Iterator[Mismatch]:
    """All inputs batched in front; for a rule of one's own also one of them behind."""
    places = range(len(subject.places))
    first = subject.tensors
    other = tuple(x * 0.75 for x in first)
    ways = [(set(places), 0)]
    if any(cls.vmap is not torch.autograd.Function.vmap for cls in classes):
        ways.append(({0}, -1))  # a rule of one's own must look at in_dims
    for moving, dim in ways:
        second = tuple(other[i] if i in moving else first[i] for i in places)
        expected = attempt(lambda xs=second: _loop(subject, (first, xs)))
        if isinstance(expected, Crash) or not subject.random_state.same():
            return
        found = attempt(lambda xs=second, m=moving, d=dim: _batch(subject, xs, m, d))
        if isinstance(found, Crash):
            shapes = attempt(
                lambda xs=second, m=moving, d=dim: _shapes(subject, xs, m, d)
            )
            # torch cannot vmap what writes to its input: no fault of the rule.
            own = "returned as-is" not in str(found) and (
                raised_inside(found.error, classes)
                or (
                    isinstance(shapes, list)
                    and shapes != [(2, *y.shape) for y in subject.outputs]
                )
            )
            yield Mismatch(
                _CODE,
                "warning" if own else "note",
                f"torch.func.vmap has a rule for the Function, and raises {found}",
                verdict="fragile" if own else "correct",
                hint="a rule must serve any in_dims; a generated one needs torch ops "
                "that vmap knows, and no .item()",
            )
            return
        which = "every input" if dim == 0 else f"{subject.input_names[0]} in dim -1"
        wrong = list(_differences(subject, found, expected, f"vmap over {which}"))
        yield from wrong
        if wrong:
            return


def _loop(subject: Subject, points: Sequence[Tensors]) -> Tensors:
    """Outputs and gradients of one point after the other, stacked."""
    results = []
    for xs, v in zip(points, subject.cotangents, strict=True):
        leaves = subject.fresh(xs)
        ys = subject.run(leaves)
        values = tuple(y.detach() for y in ys)
        results.append(values + _zeros(grad(ys, leaves, v), leaves))
    return tuple(map(torch.stack, zip(*results, strict=True)))


def _batch(subject: Subject, second: Tensors, moving: set[int], dim: int) -> Tensors:
    """Outputs and gradients of both points at once."""
    xs, dims = _stacked_inputs(subject, second, moving, dim)
    vs = [torch.stack(pair) for pair in zip(*subject.cotangents, strict=True)]

    def run(*xs: Tensor) -> Tensors:
        return subject.run(xs)

    def both(xs: Tensors, vs: Tensors) -> Tensors:
        ys, pull = torch.func.vjp(run, *xs)[:2]
        return (*ys, *pull(vs))

    f = torch.func.vmap(both, (dims, 0), randomness="same")
    return f(xs, tuple(vs))


def _shapes(
    subject: Subject, second: Tensors, moving: set[int], dim: int
) -> list[tuple[int, ...]]:
    """The shapes of the outputs alone, where the gradient does not get that far."""
    xs, dims = _stacked_inputs(subject, second, moving, dim)

    def run(*xs: Tensor) -> Tensors:
        return subject.run(xs)

    ys = torch.func.vmap(run, dims, randomness="same")(*xs)
    return [tuple(y.shape) for y in ys]


def _stacked_inputs(
    subject: Subject, second: Tensors, moving: set[int], dim: int
) -> tuple[Tensors, tuple[int | None, ...]]:
    pairs = enumerate(zip(subject.tensors, second, strict=True))
    xs = tuple(torch.stack(pair, dim) if i in moving else pair[0] for i, pair in pairs)
    return xs, tuple(dim if i in moving else None for i in range(len(xs)))


def _stacked_cotangents(subject: Subject) -> Tensors:
    leaves = subject.fresh()
    ys = subject.run(leaves)
    vs = [torch.stack(pair) for pair in zip(*subject.cotangents, strict=True)]
    with _data_detached():
        found = grad(ys, leaves, vs, is_grads_batched=True)
    stacks = [torch.stack((x, x)) for x in leaves]
    return _zeros(found, stacks)


@contextmanager
def _data_detached() -> Iterator[None]:
    """`.data` of a stack of grad_outputs is a segmentation fault, detach() an error."""
    name, data = "data", vars(torch._C.TensorBase)["data"]
    # TensorBase has it and Tensor inherits it: deleting brings it back.
    setattr(torch.Tensor, name, property(torch.Tensor.detach, data.__set__))
    try:
        yield
    finally:
        delattr(torch.Tensor, name)


def _differences(
    subject: Subject, found: Tensors, expected: Tensors, which: str
) -> Iterator[Mismatch]:
    names = [f"the gradient of {name}" for name in subject.input_names]
    if len(found) > len(names):
        count = len(found) - len(names)
        names = [f"output {i}" for i in range(count)] + names
    for name, ours, looped in zip(names, found, expected, strict=True):
        if ours.shape != looped.shape:
            said = f"has the shape {list(ours.shape)} instead of {list(looped.shape)}"
        else:
            size = max(largest_entry(looped), _floor(subject)) or 1.0
            differs = (ours - looped).abs() > 10 * subject.tolerance * size
            differs |= ours.isfinite() != looped.isfinite()
            if not bool(differs.any()):
                continue
            error = largest_entry(ours - looped) / size
            said = f"differs from that of a loop by {error:.2g} of its largest entry"
        yield Mismatch(_CODE, "error", f"with {which}, {name} {said}", subject=subject)


def _floor(subject: Subject) -> float:
    """The largest gradient of any input: one that is zero but for rounding is none."""
    found = [g for g in subject.gradients[0] if g is not None]
    return 1e-6 * max((largest_entry(g) for g in found), default=0.0)


def _zeros(found: Grads, likes: Sequence[Tensor]) -> Tensors:
    return tuple(
        torch.zeros_like(x) if g is None else g
        for g, x in zip(found, likes, strict=True)
    )
