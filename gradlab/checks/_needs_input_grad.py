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
    Grads,
    Mismatch,
    Subject,
    attempt,
    backwards_recorded,
    functions,
    grad,
)

from ._difference import differences, figures, listed, named

EVERY = 4
"""Up to so many inputs every subset is tried; else single ones and all but one."""


@dataclass(frozen=True)
class NeedsInputGrad:
    """x̄ᵢ is the same whichever inputs require grad; x̄ⱼ unasked is not computed.

    A gradient counts as computed when the backward returns new memory for an input
    that needs none: zeros, views of grad_output and expanded tensors are free.
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
            yield Mismatch(
                "needs_input_grad",
                "error",
                f"it raises {crash} when only {' or '.join(which)} requires grad",
                where=f"only {' or '.join(which)} requires grad",
                hint="save whatever any gradient needs, and ask ctx.needs_input_grad",
                subject=subject,
            )
        yield from self._wasted(subject, runs)

    def _wasted(
        self, subject: Subject, runs: Iterable[BackwardCall]
    ) -> Iterator[Mismatch]:
        wasted: dict[type, set[int]] = {}
        for run in runs:
            if unasked := _unasked(run):
                wasted.setdefault(run.function, set()).update(unasked)
        for function, arguments in wasted.items():
            which = listed(f"{i}" for i in sorted(arguments))
            yield Mismatch(
                "needs_input_grad",
                self.waste,
                f"{function.__name__} computes the gradient of argument {which} of its "
                "forward when nobody asks for it",
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


def _vjp(subject: Subject, asked: Sequence[int]) -> Grads:
    tensors = [
        x.clone().requires_grad_(i in asked) for i, x in enumerate(subject.tensors)
    ]
    vs = [v.clone() for v in subject.cotangents[0]]
    grads = grad(subject.run(tensors), [tensors[i] for i in asked], vs)
    found: list[Tensor | None] = [x.grad for x in tensors]
    for i, g in zip(asked, grads, strict=True):
        found[i] = g
    return tuple(found)


def _unasked(run: BackwardCall) -> list[int]:
    """Which arguments of a Function get a gradient that costs something for nothing."""
    return [
        i
        for i, (g, meta) in enumerate(zip(run.returned, run.metadata, strict=False))
        if isinstance(g, Tensor)
        and meta is not None
        and meta[1].is_floating_point | meta[1].is_complex
        and not run.needs_input_grad[i]
        and not _free(g, run, i)
    ]


def _free(g: Tensor, run: BackwardCall, index: int) -> bool:
    others = [t for t in run.grad_outputs if t is not None]
    others += [
        t
        for i, t in enumerate(run.returned)
        if isinstance(t, Tensor) and i != index and run.needs_input_grad[i]
    ]
    address = g.untyped_storage().data_ptr()
    return (
        not g.numel()
        or any(address == t.untyped_storage().data_ptr() for t in others)
        or any(n > 1 and s == 0 for n, s in zip(g.shape, g.stride(), strict=True))
        or not bool((g != 0).any())
    )
