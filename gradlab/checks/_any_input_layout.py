"""Outputs and gradients do not depend on how the inputs lie in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    Tensors,
    attempt,
    grad,
    largest_entry,
)

from ._difference import FLOOR, differences, listed, named, torchs_own
from ._layouts import TRANSPOSED, expanded, in_layouts_of, layouts

APART = 4
"""Up to so many inputs each is tried alone, more of them all at once."""


@dataclass(frozen=True)
class AnyInputLayout:
    """y(x′) = y(x) and x̄(x′) = x̄(x) where x′ has the values of x and other strides.

    A forward that refuses a layout aloud is noted only. Where a change of x in its last
    digit changes the gradient as much, as at a tie, a difference says nothing.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each way in which a layout matters."""
        failing: dict[tuple[Severity, str, str], list[str]] = {}
        for label, tensors, contiguous in _variants(subject):
            if said := _compare(subject, subject, tensors, contiguous):
                failing.setdefault(said, []).append(label)
        for label, leaves in _other_arguments(subject):
            copies = [x.clone() for x in subject.tensors]
            if said := _compare(subject, subject.at(leaves), copies, None):
                failing.setdefault(said, []).append(label)
        for (severity, message, hint), labels in failing.items():
            yield Mismatch(
                "any_input_layout",
                severity,
                f"{message} when {listed(labels)}",
                verdict="correct" if severity == "note" else "fragile",
                where=listed(labels),
                hint=hint,
                subject=subject,
            )


def _variants(
    subject: Subject,
) -> Iterator[tuple[str, list[Tensor], list[Tensor] | None]]:
    """Inputs in another layout, and contiguous ones where values differ as well."""
    given = subject.tensors
    apart = len(given) <= APART
    groups: dict[str, dict[int, Tensor]] = {}
    for place, x in enumerate(given):
        name = subject.input_names[place] if apart else "the inputs"
        verb = "is" if apart else "are"
        for layout, other in layouts(x):
            groups.setdefault(f"{name} {verb} {layout}", {})[place] = other
    for label, others in groups.items():
        yield label, [others.get(i, x.clone()) for i, x in enumerate(given)], None
    for place, x in enumerate(given if apart else ()):
        other = expanded(x, 1) if x.ndim else None
        if other is not None:
            tensors = [other if i == place else t.clone() for i, t in enumerate(given)]
            label = f"{subject.input_names[place]} is expanded (stride 0)"
            yield label, tensors, [t.contiguous() for t in tensors]


def _other_arguments(subject: Subject) -> Iterator[tuple[str, list[Any]]]:
    """Masks, indices and constants, transposed: a clone keeps no other layout."""
    leaves = list(subject.leaves)
    changed = []
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and i not in subject.places:
            for layout, other in layouts(leaf):
                if layout == TRANSPOSED:
                    leaves[i] = other
                    changed.append(subject.names[i])
    if changed:
        yield f"{listed(changed)} {'are' if changed[1:] else 'is'} {TRANSPOSED}", leaves


def _compare(
    subject: Subject,
    runner: Subject,
    tensors: list[Tensor],
    contiguous: list[Tensor] | None,
) -> tuple[Severity, str, str] | None:
    expected = (
        (subject.outputs, subject.gradients[0])
        if contiguous is None
        else attempt(lambda: _run(subject, contiguous))
    )
    if isinstance(expected, Crash):
        return None
    values = [x.contiguous() for x in contiguous or subject.tensors]
    leaves = [x.detach().requires_grad_() for x in in_layouts_of(values, tensors)]
    ys = attempt(lambda: runner.run(leaves))
    drawn = not runner.random_state.same()
    if isinstance(ys, Crash):
        return "note", f"the forward refuses, aloud ({ys})", ""
    vs = [v.clone() for v in subject.cotangents[0]]
    if [y.shape for y in ys] != [v.shape for v in vs]:
        return None
    grads = attempt(lambda: grad(ys, leaves, vs))

    def torch_too() -> bool:
        again = in_layouts_of(values, tensors)
        return torchs_own(
            subject, lambda: _vjp(runner, again, vs), lambda: _vjp(subject, values, vs)
        )

    if isinstance(grads, Crash):
        if torch_too():
            return None
        return (
            "error",
            f"the backward raises {grads}",
            "reshape instead of view; .contiguous() before a kernel",
        )
    if drawn:
        # Random numbers are drawn in the order of memory: other values are right.
        return None
    if _outputs_differ(subject, ys, expected[0]) and not _touchy(subject, values):
        return (
            "error",
            "the forward returns other values",
            "it reads memory in storage order: .contiguous() first",
        )
    found = differences(subject, grads, expected[1])
    if not found or _touchy(subject, values) or torch_too():
        return None
    return (
        "error",
        f"the gradient of {named(subject, found)} is another",
        "it reads memory in storage order: .contiguous() before saving or using it",
    )


def _vjp(runner: Subject, tensors: Sequence[Tensor], vs: Sequence[Tensor]) -> Grads:
    """As `Subject.vjp`, which copies the inputs and so their layout."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    ys = runner.run(leaves)
    return grad(ys, leaves, [v.clone() for v in vs])


def _run(subject: Subject, tensors: Sequence[Tensor]) -> tuple[Tensors, Grads]:
    leaves = subject.fresh(tensors)
    ys = subject.run(leaves)
    grads = grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])
    return tuple(y.detach() for y in ys), grads


def _outputs_differ(subject: Subject, ys: Tensors, expected: Tensors) -> bool:
    for y, z in zip(ys, expected, strict=True):
        finite = torch.isfinite(z)
        error = torch.where(finite, (y.detach() - z).abs(), 0.0)
        slack = max(subject.tolerance, FLOOR) * largest_entry(z)
        if not bool((error <= slack).all()):
            return True
    return False


def _touchy(subject: Subject, tensors: Sequence[Tensor]) -> bool:
    """Whether rounding the contiguous inputs changes outputs or gradients too."""
    runs = [
        attempt(lambda near=near: _run(subject, near))
        for near in (
            [factor * x for x in tensors]
            for factor in (1.0, 1 + 4 * subject.eps, 1 - 4 * subject.eps)
        )
    ]
    if any(isinstance(run, Crash) for run in runs):
        return True
    (ys, grads), *others = runs
    return any(
        _outputs_differ(subject, zs, ys) or differences(subject, again, grads)
        for zs, again in others
    )
