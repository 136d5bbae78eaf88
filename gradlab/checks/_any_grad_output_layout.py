"""The gradient does not depend on how grad_output lies in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import Crash, Grads, Mismatch, Subject, Tensors, attempt, grad

from ._difference import (
    Difference,
    differences,
    figures,
    listed,
    named,
    torchs_own,
)
from ._layouts import expanded, in_layouts_of, layouts


@dataclass(frozen=True)
class AnyGradOutputLayout:
    """x̄(ȳ) = x̄(ȳ′) where ȳ′ has the values of ȳ and other strides, or an offset.

    `.sum()` sends back stride 0, `.t()` a transposed tensor, a slice one with gaps.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each way in which a layout matters."""
        crashes: dict[str, list[str]] = {}
        wrong: dict[str, list[Difference]] = {}
        for layout, vs, expected in _variants(subject):
            if expected is None:
                continue
            values = [v.clone(memory_format=torch.contiguous_format) for v in vs]
            got = attempt(lambda vs=vs: _vjp(subject, vs))
            crashed = isinstance(got, Crash)
            found = [] if crashed else differences(subject, got, expected)
            if not (crashed or found) or torchs_own(
                subject,
                lambda vs=vs, values=values: _vjp(subject, in_layouts_of(values, vs)),
                lambda values=values: subject.vjp(values),
            ):
                continue
            if crashed:
                crashes.setdefault(str(got), []).append(layout)
            else:
                wrong[layout] = found
        for crash, failing in crashes.items():
            yield Mismatch(
                "any_grad_output_layout",
                "error",
                f"the backward raises {crash} when grad_output is {listed(failing)}",
                where=listed(failing),
                hint="reshape instead of view; grad_output.contiguous() for a kernel; "
                "never write to it",
                subject=subject,
            )
        if wrong:
            found = [d for each in wrong.values() for d in each]
            yield Mismatch(
                "any_grad_output_layout",
                "error",
                f"the gradient of {named(subject, found)} is another when grad_output "
                f"is {listed(wrong)}",
                where=listed(wrong),
                hint="it reads memory in storage order: grad_output.contiguous() first",
                numbers=figures(found),
                subject=subject,
                place=found[0].place,
            )


def _variants(subject: Subject) -> Iterator[tuple[str, Tensors, Grads | None]]:
    """Each layout, grad_outputs in it, and the gradient with contiguous ones."""
    given = subject.cotangents[0]
    by_name: dict[str, list[Tensor]] = {}
    for i, v in enumerate(given):
        for name, other in layouts(v):
            variant = by_name.setdefault(name, [w.clone() for w in given])
            variant[i] = other
    for name, vs in by_name.items():
        yield name, tuple(vs), subject.gradients[0]
    for name, first in (
        ("expanded (stride 0, as from .sum())", None),
        ("expanded along its first dim (as from .sum(0))", 1),
    ):
        repeated = [
            expanded(v, v.ndim if first is None else first)
            if v.ndim > (first or 0)
            else None
            for v in given
        ]
        if all(v is None for v in repeated):
            continue
        pairs = zip(given, repeated, strict=True)
        vs = tuple(v.clone() if e is None else e for v, e in pairs)
        expected = attempt(lambda vs=vs: subject.vjp([v.contiguous() for v in vs]))
        yield name, vs, None if isinstance(expected, Crash) else expected


def _vjp(subject: Subject, vs: Tensors) -> Grads:
    """As `Subject.vjp`, which copies the grad_outputs and so their layout."""
    leaves = subject.fresh()
    return grad(subject.run(leaves), leaves, vs)
