"""One op in the middle of the forward has the wrong local derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from gradlab.subject import Mismatch, attempt

from ._axes import flipped, permuted
from ._evidence import Evidence, evidence
from ._extra_factor import ExtraFactor
from ._misread_grad_output import MisreadGradOutput
from ._missing_term import MissingTerm
from ._paths import Paths, paths
from ._recorder import Step
from ._transposed import Transposed
from ._unreduced import Unreduced
from ._wrong_operand import WrongOperand

MOST = 40
"""Forwards of more steps than this are not searched."""

_Change = Callable[[Tensor], Tensor]
_PLAINER = (
    Transposed(),
    MisreadGradOutput(),
    Unreduced(),
    ExtraFactor(),
    WrongOperand(),
    MissingTerm(),
)
"""What can be said of the gradient as a whole is not said of one op."""


@dataclass(frozen=True)
class AlteredTerm:
    """x̄ = true x̄ + (∂zₖ/∂x)ᵀ (m(z̄ₖ) − z̄ₖ): z̄ₖ times a tensor of the call, or permuted.

    The tensor is an input, an output, or what op k itself computes with.
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        found = paths(seen)
        if found is None or len(found.steps) > MOST:
            return None
        first = found.adjoints(seen.cotangents[0], [s.edge for s in found.steps])
        for step, adjoint in zip(found.steps, first, strict=True):
            if adjoint is None:
                continue
            for what, change in _changes(seen, found, step, adjoint):
                if _explains(seen, found, step, adjoint, change):
                    if any(d(mismatch) for d in _PLAINER):
                        return None
                    return f"the path through {step} {what}"
        return None


def _explains(
    seen: Evidence, found: Paths, step: Step, first: Tensor, change: _Change
) -> bool:
    def proposal(i: int) -> Tensor | None:
        adjoint: Tensor | None = first
        if i:
            (adjoint,) = found.adjoints(seen.cotangents[1], [step.edge])
        if adjoint is None:
            return None
        t = found.back(step.edge, change(adjoint) - adjoint)
        return None if t is None else seen.expected[i] + t

    return seen.explained_by(proposal)


def _changes(
    seen: Evidence, found: Paths, step: Step, adjoint: Tensor
) -> Iterator[tuple[str, _Change]]:
    named = [
        (name, leaf)
        for name, leaf in zip(seen.subject.names, seen.subject.leaves, strict=True)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    ]
    named += [("the output", y) for y in seen.subject.outputs]
    named += [
        (f"argument {s.argument}" if s.argument is not None else "its result", s.value)
        for s in found.steps
        if (s.op, s.line) == (step.op, step.line)
    ]
    for name, t in named:
        if t.numel() < 2:
            continue
        fits = attempt(lambda t=t: t.expand(adjoint.shape))
        if not isinstance(fits, Tensor):
            continue
        for form, f in (
            (name, fits),
            (f"{name}²", fits * fits),
            (f"1 − {name}", 1 - fits),
            (f"1 − {name}²", 1 - fits * fits),
        ):
            if not bool((f != 0).all()) or not bool(torch.isfinite(f).all()):
                continue
            yield f"has a factor {form} too much", lambda a, f=f: a * f
            yield f"lacks the factor {form}", lambda a, f=f: a / f
    for what, move in chain(permuted(adjoint.shape), flipped(adjoint.shape)):
        yield f"is wrong: what it passes on {what}", move
