"""The gradient does not depend on how often, when and by which call it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab._report import Level, Severity
from gradlab.subject import (
    Crash,
    Grads,
    Mismatch,
    Subject,
    attempt,
    functions,
    grad,
    largest_entry,
)

from ._difference import Difference, differences, figures, listed, named, same_values


@dataclass(frozen=True)
class Repeatable:
    """x̄₁ = x̄₂ = x̄₃ through one graph, and x̄₁ again in every other way of asking.

    After a forward at another point in between, or a change of mode; with respect to
    leaves and to intermediate tensors; by `autograd.grad` and by `.backward()`.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each way of asking that gives something else."""
        yield from _several_times(subject)
        yield from _handed_out(subject)
        for run, how, hint in _WAYS:
            if run is _in_another_mode and not subject.modules:
                continue
            got = attempt(lambda run=run: run(subject))
            if isinstance(got, Crash):
                yield _mismatch(subject, f"the backward raises {got} {how}", hint)
            elif found := differences(subject, got, subject.gradients[0]):
                yield _mismatch(
                    subject,
                    f"the gradient of {named(subject, found)} is another {how}",
                    hint,
                    found,
                )


def _several_times(subject: Subject) -> Iterator[Mismatch]:
    leaves = subject.fresh()
    ys = subject.run(leaves)
    first: Grads = ()
    for time in ("first", "second", "third"):
        vs = [v.clone() for v in subject.cotangents[0]]
        got = attempt(lambda vs=vs: grad(ys, leaves, vs, retain_graph=True))
        if isinstance(got, Crash):
            yield _crashed(subject, time, got)
            return
        # The engine may hand out, and later write to, a tensor that it still owns.
        got = tuple(None if g is None else g.clone() for g in got)
        first = first or got
        if found := differences(subject, got, first):
            yield _mismatch(
                subject,
                f"the {time} backward through one graph gives another gradient of "
                f"{named(subject, found)} than the first",
                "the backward changes what the forward saved, counts its runs, or "
                "draws random numbers",
                found,
            )
            return


def _handed_out(subject: Subject) -> Iterator[Mismatch]:
    """A gradient that was returned is the caller's: no later run may write to it."""
    got = attempt(lambda: subject.vjp(subject.cotangents[0]))
    if isinstance(got, Crash):
        return
    before = [None if g is None else g.clone() for g in got]
    attempt(lambda: subject.vjp(subject.cotangents[1]))
    changed = [
        name
        for name, g, old in zip(subject.input_names, got, before, strict=True)
        if g is not None and old is not None and not same_values(g, old)
    ]
    if changed:
        yield _mismatch(
            subject,
            f"the gradient of {listed(changed)} changes when the backward of another "
            "graph runs: it is returned in memory that is used again",
            "return a new tensor each time, not a workspace of the class",
        )


def _crashed(subject: Subject, time: str, crash: Crash) -> Mismatch:
    once = any(
        getattr(cls, "clear_saved_tensors_on_access", False)
        for cls in functions(subject)
    )
    if once and "clear_saved_tensors_on_access" in str(crash):
        return _mismatch(
            subject,
            "a second backward through one graph is refused: the Function sets "
            "clear_saved_tensors_on_access",
            "",
            severity="note",
        )
    hint = "everything the backward needs must still be there after it ran once"
    if "backward through the graph a second time" in str(crash.error):
        hint = (
            "the backward runs a graph of its own that is freed by that: recompute it "
            "inside the backward, or pass retain_graph=True there"
        )
    return _mismatch(
        subject,
        f"the {time} backward through one graph raises {crash}, although "
        "retain_graph=True",
        hint,
    )


def _mismatch(
    subject: Subject,
    message: str,
    hint: str,
    found: Sequence[Difference] = (),
    severity: Severity = "error",
) -> Mismatch:
    return Mismatch(
        "repeatable",
        severity,
        message,
        verdict="correct" if severity == "note" else "fragile",
        hint=hint,
        numbers=figures(found) if found else {},
        subject=subject,
    )


def _another_forward_between(subject: Subject) -> Grads:
    leaves = subject.fresh()
    ys = subject.run(leaves)
    for factor in (-0.7, 0.9):
        point = subject.at(_elsewhere(subject, factor))
        # The parameters of a Module stay the same tensors from one forward to the next.
        other = [
            leaf if place in subject.lent else x
            for place, leaf, x in zip(
                subject.places, leaves, point.fresh(), strict=True
            )
        ]
        if not isinstance(attempt(lambda p=point, o=other: p.run(o)), Crash):
            break
    return grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])


def _elsewhere(subject: Subject, factor: float) -> list[Any]:
    """Other numbers in the place of all arguments, the same kinds and shapes."""

    def other(value: Any) -> Any:
        if isinstance(value, float):
            return factor * value
        if not isinstance(value, Tensor):
            return value
        if value.dtype == torch.bool:
            return ~value
        if not (value.is_floating_point() or value.is_complex()):
            return value.reshape(-1).flip(0).view(value.shape)
        return factor * value + 0.05 * (largest_entry(value) or 1.0)

    return [other(leaf) for leaf in subject.leaves]


def _of_intermediates(subject: Subject) -> Grads:
    leaves = subject.fresh()
    intermediates = [x.clone() for x in leaves]
    ys = subject.run(intermediates)
    return grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])


def _in_another_mode(subject: Subject) -> Grads:
    leaves = subject.fresh()
    ys = subject.run(leaves)
    modules = {m: m.training for root in subject.modules for m in root.modules()}
    try:
        for module, training in modules.items():
            module.training = not training
        return grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])
    finally:
        for module, training in modules.items():
            module.training = training


def _into_grad(subject: Subject) -> Grads:
    leaves = subject.fresh()
    pairs = zip(subject.run(leaves), subject.cotangents[0], strict=True)
    ys, vs = zip(*((y, v.clone()) for y, v in pairs if y.requires_grad), strict=True)
    torch.autograd.backward(ys, vs)
    return _of(leaves)


def _of(leaves: Sequence[Tensor]) -> Grads:
    return tuple(x.grad for x in leaves)


_WAYS: tuple[tuple[Callable[[Subject], Grads], str, str], ...] = (
    (
        _another_forward_between,
        "if another forward runs between forward and backward",
        "keep it on ctx by save_for_backward, not on the class, the module or a global",
    ),
    (
        _of_intermediates,
        "if the inputs are not leaves",
        "the backward must not ask for is_leaf, .grad or requires_grad of an input",
    ),
    (
        _in_another_mode,
        "if train() or eval() is called between forward and backward",
        "keep the flag on ctx in the forward",
    ),
    (
        _into_grad,
        "by .backward() into .grad",
        "return the gradient, and leave .grad to the engine",
    ),
)
