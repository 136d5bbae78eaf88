"""Each gradient is there when it is asked for, and no other one is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from torch import Tensor

from gradlab._report import Level, Severity
from gradlab.subject import (
    BackwardCall,
    Crash,
    FunctionClass,
    Grads,
    Mismatch,
    Subject,
    attempt,
    backwards_recorded,
    functions,
    grad,
)

from ._difference import differences, figures, listed, named
from ._promises import mentions
from ._unasked import CONTRACTIONS, own_ops, unasked

EVERY = 4
"""Up to so many inputs every subset is tried; else single ones and all but one."""


@dataclass(frozen=True)
class NeedsInputGrad:
    """x̄ᵢ is the same whichever inputs require grad; x̄ⱼ unasked is not computed.

    A gradient counts as computed when the backward returns new memory for an input
    that needs none: zeros, views of grad_output and expanded tensors are free, and so
    is a step on the way to an asked one. Worth a warning is a product of matrices, of a
    Function that asks `ctx.needs_input_grad` at all.
    """

    level: Level = "contract"
    limit: int = 10
    waste: Severity = "warning"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each failure, and for each wasteful Function."""
        crashes: dict[str, list[str]] = {}
        with backwards_recorded(functions(subject)) as runs:
            for asked in _subsets(len(subject.places), self.limit):
                names = listed(subject.input_names[i] for i in asked)
                got = attempt(lambda asked=asked: _vjp(subject, asked))
                if isinstance(got, Crash):
                    crashes.setdefault(str(got), []).append(names)
                    continue
                expected = [
                    g if i in asked else None
                    for i, g in enumerate(subject.gradients[0])
                ]
                if found := differences(subject, got, expected):
                    yield Mismatch(
                        "needs_input_grad",
                        "error",
                        f"the gradient of {named(subject, found)} is another when only "
                        f"{names} requires grad",
                        where=f"only {names} requires grad",
                        hint="look at the order of ctx.needs_input_grad: one entry "
                        "for each argument of forward, ctx not counted",
                        numbers=figures(found),
                        subject=subject,
                        place=found[0].place,
                    )
        for crash, which in crashes.items():
            first = " or ".join(which[:2])
            more = f", and for {len(which) - 2} more subsets" * (len(which) > 2)
            yield Mismatch(
                "needs_input_grad",
                "error",
                f"it raises {crash} when only {first} requires grad{more}",
                where=f"only {first} requires grad{more}",
                hint="save whatever any gradient needs, and ask ctx.needs_input_grad",
                subject=subject,
            )
        yield from self._wasted(subject, runs)

    def _wasted(
        self, subject: Subject, runs: Iterable[BackwardCall]
    ) -> Iterator[Mismatch]:
        wasted: dict[FunctionClass, set[int]] = {}
        suspects = {run.function for run in runs if unasked(run)}
        if not suspects:
            return
        # Once more with a graph, to see what the gradients are made of.
        with backwards_recorded(functions(subject)) as traced:
            for asked in _subsets(len(subject.places), self.limit):
                attempt(lambda asked=asked: _vjp(subject, asked, create_graph=True))
        heavy: set[FunctionClass] = set()
        for run in traced:
            for i in unasked(run):
                own = own_ops(run, i)
                if own is not None:
                    wasted.setdefault(run.function, set()).add(i)
                    if any(name.startswith(CONTRACTIONS) for name in own) and mentions(
                        run.function, ["needs_input_grad"]
                    ):
                        heavy.add(run.function)
        for function, arguments in wasted.items():
            which = listed(f"{i}" for i in sorted(arguments))
            yield Mismatch(
                "needs_input_grad",
                self.waste if function in heavy else "note",
                f"{function.__name__} computes the gradient of argument {which} of its "
                "forward when nobody asks for it",
                verdict="fragile" if function in heavy else "correct",
                hint="if ctx.needs_input_grad[i]: compute it; else return None there",
                subject=subject,
            )


def _subsets(count: int, limit: int) -> list[tuple[int, ...]]:
    """All of them first: an argument that is no input may be wasted on as well."""
    everything = tuple(range(count))
    sizes = range(1, count) if count <= EVERY else (1, count - 1)
    some = chain.from_iterable(combinations(everything, size) for size in sizes)
    proper = list(some)
    if len(proper) > limit and count > EVERY:
        step = len(proper) / limit
        proper = [proper[int(k * step)] for k in range(limit)]
    return [everything, *proper]


def _vjp(subject: Subject, asked: Sequence[int], create_graph: bool = False) -> Grads:
    tensors = [
        x.clone().requires_grad_(i in asked) for i, x in enumerate(subject.tensors)
    ]
    vs = [v.clone() for v in subject.cotangents[0]]
    if create_graph:
        vs = [v.requires_grad_() for v in vs]
    sources = [tensors[i] for i in asked]
    grads = grad(subject.run(tensors), sources, vs, create_graph=create_graph)
    found: list[Tensor | None] = [x.grad for x in tensors]
    for i, g in zip(asked, grads, strict=True):
        found[i] = g
    return tuple(found)
