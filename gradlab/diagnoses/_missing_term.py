"""A path of the chain rule that the backward forgets, or weighs wrongly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch, attempt, largest_entry

from ._dropped_output import DroppedOutput
from ._evidence import Evidence, evidence
from ._named_constant import name_constant
from ._paths import Paths, paths
from ._recorder import Step


@dataclass(frozen=True)
class MissingTerm:
    """x̄ = true x̄ + (c − 1) x̄ₖ, where x̄ₖ runs through op k: c = 0 forgets that path.

    Two paths are tried together where no single one explains the gradient; then each
    of them is missing or has the wrong sign.
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        found = paths(seen)
        if found is None:
            return None
        terms = _terms(seen, found)
        if not terms:
            return None
        said = (
            _single(seen, found, terms)
            or _repeated(seen, found)
            or _pair(seen, found, terms)
        )
        # A whole output is plainer to name than the ops that lead to it.
        return None if said and DroppedOutput()(mismatch) else said


@dataclass(frozen=True)
class _Term:
    """A step, and what passes through it for the first cotangents."""

    step: Step
    value: Tensor


def _terms(seen: Evidence, found: Paths) -> list[_Term]:
    """The steps that carry a part of the gradient, each different part once."""
    adjoints = found.adjoints(seen.cotangents[0], [s.edge for s in found.steps])
    terms: list[_Term] = []
    known: list[Tensor] = []
    total = seen.expected[0].abs().max()
    # Results first: they are plainer to name than arguments.
    pairs = list(zip(found.steps, adjoints, strict=True))
    for step, adjoint in sorted(pairs, key=lambda p: p[0].argument is not None):
        t = found.back(step.edge, adjoint)
        if t is None or not bool(torch.isfinite(t).all()):
            continue
        small = 1e-9 * max(float(total), float(t.abs().max()))
        same = [k for k, u in enumerate(known) if float((t - u).abs().max()) <= small]
        if same:
            _rename(terms, known[same[0]], step)
            continue
        known.append(t)
        if float(t.abs().max()) > 1e-6 * float(total):
            terms.append(_Term(step, t))
    return terms


_TELLING = ("mean", "sum", "var", "std", "norm", "amax", "max", "matmul")


def _rename(terms: list[_Term], value: Tensor, step: Step) -> None:
    """Of one path through several ops, a reduction says best which it is."""
    for k, term in enumerate(terms):
        if term.value is value:
            names = [t.op.split("`")[0] in _TELLING for t in (term.step, step)]
            if names == [False, True] and step.argument is None:
                terms[k] = _Term(step, value)


def _single(seen: Evidence, found: Paths, terms: list[_Term]) -> str | None:
    error = seen.actual[0] - seen.expected[0]
    fits = []
    for order, term in enumerate(terms):
        s = _ratio(term.value, error)
        if not _close(seen, 0, s * term.value):
            continue
        again = _through(seen, found, term.step, 1)
        if again is None or not _close(seen, 1, s * again):
            continue
        fits.append((_complexity(1 + s, seen), order, 1 + s, term.step))
    if not fits:
        return None
    _, _, c, step = min(fits, key=lambda fit: fit[:2])
    return f"the path through {step} {_says(c, seen)}"


def _repeated(seen: Evidence, found: Paths) -> str | None:
    """A path through an op in a loop, all its runs together."""
    runs: dict[tuple[str, str, int | None], list[Step]] = defaultdict(list)
    for step in found.steps:
        runs[step.op, step.line, step.argument].append(step)
    for steps in runs.values():
        if len(steps) < 2:
            continue
        without = attempt(lambda s=steps: found.without(t.cut for t in s))
        if not isinstance(without, Paths):
            continue
        t = []
        for v, r in zip(seen.cotangents, seen.expected, strict=True):
            rest = without.total(v)
            t.append(r if rest is None else r - rest)
        if largest_entry(t[0]) <= 1e-9 * largest_entry(seen.expected[0]):
            continue
        s = _ratio(t[0], seen.actual[0] - seen.expected[0])
        if _close(seen, 0, s * t[0]) and _close(seen, 1, s * t[1]):
            path = f"the path through {steps[0]}, run {len(steps)} times,"
            return f"{path} {_says(1 + s, seen)}"
    return None


def _ratio(t: Tensor, error: Tensor) -> float:
    """The s for which s t is nearest to the error; a whole number where it is one."""
    t, error = t.reshape(-1), error.reshape(-1)
    s = float((torch.vdot(t, error) / torch.linalg.vector_norm(t) ** 2).real)
    return round(s) if abs(s - round(s)) < 1e-6 else s


def _pair(seen: Evidence, found: Paths, terms: list[_Term]) -> str | None:
    for a, s, b, u in _pairs(seen, terms):
        first, second = (_through(seen, found, t.step, 1) for t in (a, b))
        if first is None or second is None:
            continue
        if _close(seen, 1, s * first + u * second):
            return (
                f"two paths are wrong: the one through {a.step} {_says(1 + s, seen)}, "
                f"the one through {b.step} {_says(1 + u, seen)}"
            )
    return None


def _pairs(
    seen: Evidence, terms: list[_Term]
) -> Iterator[tuple[_Term, int, _Term, int]]:
    """Pairs that explain the error for the first cotangents, missing ones first."""
    error = (seen.actual[0] - seen.expected[0]).reshape(-1)
    if error.numel() < 4 or len(terms) < 2:
        return
    rows = torch.stack([t.value.reshape(-1) for t in terms])
    for s, u in ((-1, -1), (-1, -2), (-2, -1), (-2, -2)):
        for k, row in enumerate(rows):
            rest = error - s * row - u * rows[k + 1 :]
            good = (rest.abs().amax(-1) <= seen.bounds[0]).nonzero().reshape(-1)
            for other in good.tolist():
                yield terms[k], s, terms[k + 1 + other], u


def _through(seen: Evidence, found: Paths, step: Step, i: int) -> Tensor | None:
    (adjoint,) = found.adjoints(seen.cotangents[i], [step.edge])
    return found.back(step.edge, adjoint)


def _close(seen: Evidence, i: int, change: Tensor) -> bool:
    return seen.matches(i, seen.expected[i] + change)


def _complexity(c: float, seen: Evidence) -> int:
    if c in (0.0, -1.0):
        return -int(c)
    return 2 if name_constant(c, seen.subject, seen.tolerance) else 3


def _says(c: float, seen: Evidence) -> str:
    if c == 0:
        return "is missing"
    if c == -1:
        return "has the wrong sign"
    name = name_constant(c, seen.subject, seen.tolerance)
    return f"is multiplied by {c:.6g}" + (f": {name}" if name else "")
