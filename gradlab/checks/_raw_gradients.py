"""What a backward returns needs no repair: the engine would do it without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level, Severity
from gradlab.subject import (
    BackwardCall,
    Mismatch,
    Subject,
    attempt,
    backwards_recorded,
    functions,
    grad,
)


@dataclass(frozen=True)
class RawGradients:
    """x̄ as returned has the shape and the dtype of x.

    The engine sums what was broadcast and casts what has another dtype: the result is
    right, the memory and the precision are gone.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each argument whose gradient needs repair."""
        classes = functions(subject)
        if not classes:
            return
        with backwards_recorded(classes) as runs:
            subject.vjp(subject.cotangents[0])
            for dtype in (torch.float32, torch.bfloat16):
                if subject.dtype == torch.float64:
                    attempt(lambda dtype=dtype: _run_in(subject, dtype))
        seen: set[str] = set()
        for run in runs:
            for severity, message, hint in _repairs(run):
                if message in seen:
                    continue
                seen.add(message)
                yield Mismatch(
                    "raw_gradients",
                    severity,
                    message,
                    verdict="correct" if severity == "note" else "fragile",
                    hint=hint,
                    subject=subject,
                )


def _run_in(subject: Subject, dtype: torch.dtype) -> None:
    """One backward in a narrower dtype: the checker widened what the user passed."""
    narrow = subject.at(
        [
            leaf.to(dtype)
            if isinstance(leaf, Tensor) and leaf.is_floating_point()
            else leaf
            for leaf in subject.leaves
        ]
    )
    leaves = narrow.fresh()
    ys = narrow.run(leaves)
    grad(ys, leaves, [torch.ones_like(y) for y in ys])


def _repairs(run: BackwardCall) -> Iterator[tuple[Severity, str, str]]:
    for i, (g, meta) in enumerate(zip(run.returned, run.metadata, strict=False)):
        if not isinstance(g, Tensor) or meta is None:
            continue
        shape, dtype = meta
        what = f"{run.function.__name__} returns for argument {i} of its forward"
        if not (dtype.is_floating_point or dtype.is_complex):
            yield (
                "warning",
                f"{what} a gradient although that is {_name(dtype)}",
                "return None there",
            )
            continue
        if not run.needs_input_grad[i]:
            continue
        if g.shape != shape:
            yield (
                "warning" if g.numel() > shape.numel() else "note",
                f"{what} a gradient of shape {list(g.shape)}, the argument has "
                f"{list(shape)}",
                "sum over the broadcast dims: grad.sum_to_size(x.shape)",
            )
        if g.dtype != dtype:
            yield (
                _severity(g.dtype, dtype),
                f"{what} a gradient in {_name(g.dtype)}, the argument is "
                f"{_name(dtype)}",
                "return grad.to(x.dtype)",
            )


def _severity(got: torch.dtype, wanted: torch.dtype) -> Severity:
    """A loss of precision counts, unless it was the checker that widened the input."""
    if wanted in (torch.float64, torch.complex128) or got.is_complex:
        return "note"
    if not got.is_floating_point or torch.finfo(got).eps > torch.finfo(wanted).eps:
        return "warning"
    return "note"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
