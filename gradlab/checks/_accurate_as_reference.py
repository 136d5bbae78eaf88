"""In float32 and bfloat16 outputs and gradients are as accurate as the reference's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import (
    GIVEN,
    Crash,
    Mismatch,
    NotChecked,
    Subject,
    Tensors,
    attempt,
    filled,
    grad,
    largest_entry,
    normal_like,
    truth,
)

_CODE = "accurate_as_reference"
_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class AccurateAsReference:
    """rms |z(dtype) − z| ≤ factor · rms |z_ref(dtype) − z|, or is one rounding of z.

    z stands for every output and every gradient, computed by the reference in float64
    from the numbers that the dtype can hold. The error of a tensor is that of its worst
    entry, root mean square over several points, since one point of five numbers is a
    lottery. Both with and without `create_graph`, which may run other code.

    Not among `checks`: stricter than what a backward owes to anyone, and too slow for
    each of them. The conformance suite asks it of every layer, against torch's own op.
    """

    level: Level = "contract"
    factor: float = 2.0
    draws: int = 16

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each dtype and tensor with a larger error."""
        if subject.reference is None or truth(subject).kind != GIVEN:
            raise NotChecked("there is no reference to be as accurate as")
        if subject.dtype != torch.float64 or subject.single:
            raise NotChecked("the exact values need float64")
        for dtype in _DTYPES:
            yield from self._in(subject, dtype)

    def _in(self, subject: Subject, dtype: torch.dtype) -> Iterator[Mismatch]:
        name = str(dtype).removeprefix("torch.")
        generator = torch.Generator().manual_seed(subject.seed + 7)
        squares: dict[bool, list[list[Tensor]]] = {False: [], True: []}
        for _ in range(self.draws):
            point = _drawn(subject, dtype, generator)
            vs = [normal_like(y, generator).to(dtype) for y in subject.outputs]
            wide = point.at([_cast(leaf, torch.float64) for leaf in point.leaves])
            exact = _results(wide, [v.double() for v in vs], subject.reference)
            for graph, rows in squares.items():
                run = partial(_results, point, vs, create_graph=graph)
                theirs = attempt(partial(run, subject.reference))
                if isinstance(theirs, Crash):
                    raise NotChecked(f"the reference does not run in {name}: {theirs}")
                ours = attempt(partial(run, None))
                if isinstance(ours, Crash):
                    yield _mismatch(f"it raises {ours} in {name}", {})
                    return
                rows.append(_errors(ours, theirs, exact, torch.finfo(dtype).eps / 2))
        count = len(subject.outputs)
        names = [f"output {i}" for i in range(count)]
        names += [f"the gradient of {name}" for name in subject.input_names]
        for graph, rows in squares.items():
            means = torch.stack([torch.stack(row) for row in rows]).mean(0).sqrt()
            for label, (ours, theirs, rounding) in zip(
                names, means.tolist(), strict=True
            ):
                if not ours <= max(self.factor * theirs, rounding):
                    how = " under create_graph" if graph else ""
                    yield _mismatch(
                        f"in {name}{how} the error of {label} is {ours:.2g}, the "
                        f"reference's {theirs:.2g}, one rounding {rounding:.2g}",
                        {"error": ours, "error of the reference": theirs},
                    )


def _drawn(subject: Subject, dtype: torch.dtype, generator: torch.Generator) -> Subject:
    """The point, each number times one of its own in [½, 1], which keeps its domain."""

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        by = torch.rand(leaf.shape, dtype=torch.float64, generator=generator)
        return (leaf * (0.5 + by / 2).to(leaf.device)).to(dtype)

    point = subject.at(map(draw, subject.leaves))
    point.__dict__["differentiable"] = subject.differentiable
    return point


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    floats = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return leaf.to(dtype) if floats else leaf


def _results(
    subject: Subject,
    vs: Sequence[Tensor],
    call: Callable[..., Any] | None,
    create_graph: bool = False,
) -> Tensors:
    leaves = subject.fresh()
    ys = subject.run(leaves, call)
    found = grad(ys, leaves, [v.clone() for v in vs], create_graph=create_graph)
    pairs = zip(found, leaves, strict=True)
    return tuple(t.detach() for t in (*ys, *(filled(g, x) for g, x in pairs)))


def _errors(
    ours: Tensors, theirs: Tensors, exact: Tensors, unit: float
) -> list[Tensor]:
    """The squares of both errors and of one rounding, for each tensor."""
    triples = zip(ours, theirs, exact, strict=True)
    rows = [
        (largest_entry(a - e), largest_entry(b - e), unit * largest_entry(e))
        for a, b, e in triples
    ]
    return [torch.tensor(row, dtype=torch.float64).square() for row in rows]


def _mismatch(message: str, numbers: dict[str, float]) -> Mismatch:
    return Mismatch(
        _CODE,
        "warning",
        message,
        hint="compute sums, squares and exponentials in float32, and cast at the end",
        numbers=numbers,
    )
