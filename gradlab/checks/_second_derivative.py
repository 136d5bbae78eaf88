"""The backward can be differentiated, or says that it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import (
    Crash,
    Mismatch,
    NotChecked,
    Subject,
    Tensors,
    attempt,
    calls_recorded,
    derivative,
    functions,
    grad,
    graph_nodes,
    inner,
    is_bare,
    natural_directions,
    normal_like,
    recognise,
    subject_of,
)

from ._gradient_map import gradient_map, gradients
from ._refusal import refuses

_CODE = "second_derivative"


@dataclass(frozen=True)
class SecondDerivative:
    """d/dt ⟨x̄(x + t u, ȳ + t p), w⟩ by autograd = the same by differences of x̄.

    u, p and w are random. It is a claim about the backward alone: x̄ itself may be
    wrong. `once_differentiable` declares that there is no second derivative; a graph
    that ends without a word makes it zero.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch when it is wrong, and a note when it is declared absent."""
        if not functions(subject):
            return
        if torch.finfo(subject.dtype).bits < 32:
            raise NotChecked("differences need float32 at least")
        probe = gradient_map(subject)
        claim = attempt(lambda: _claim(subject, probe, 0))
        if isinstance(claim, Crash):
            yield _crashed(claim, subject)
        elif claim is None:
            yield Mismatch(
                _CODE,
                "note",
                "second derivatives are declared absent (once_differentiable)",
                verdict="correct",
            )
        elif not _agrees(probe, claim):
            # Again in another direction with a longer step: noise does not come twice.
            again = attempt(lambda: _claim(subject, probe, 1))
            if (
                isinstance(again, _Claim)
                and _contradicted(probe, claim)
                and _contradicted(probe, again, step=1e-2)
                and not _chosen(subject)
            ):
                yield from _blame(subject, probe, claim)


@dataclass(frozen=True)
class _Claim:
    """What double backward says along one direction.

    `unreached`: the graph of x̄ does not lead back to that tensor. `size`: Σ |w| |x̄|.
    """

    weights: Tensors
    direction: Tensors
    slopes: tuple[float, ...]
    unreached: tuple[bool, ...]
    size: float


def _claim(subject: Subject, probe: Subject, seed: int) -> _Claim | None:
    """The second derivative along a random direction; None where declared absent."""
    xs = subject.fresh()
    sent = [v.clone().requires_grad_() for v in subject.cotangents[0]]
    found = gradients(subject, xs, sent, create_graph=True)
    if any(node.name().endswith("::Error") for node in graph_nodes(found)):
        return None
    generator = torch.Generator().manual_seed(subject.seed + 2000 + seed)
    weights = tuple(normal_like(g, generator) for g in found)
    sizes = (
        inner(w.abs(), g.detach().abs()) for w, g in zip(weights, found, strict=True)
    )
    slopes = grad(found, [*xs, *sent], weights)
    direction = natural_directions(probe, 10 + seed)
    return _Claim(
        weights,
        direction,
        tuple(
            0.0 if s is None else inner(s, u)
            for s, u in zip(slopes, direction, strict=True)
        ),
        tuple(s is None for s in slopes),
        sum(sizes),
    )


def _slack(probe: Subject, claim: _Claim, *values: float) -> float:
    loose = 2e-2 if probe.eps > 1e-10 else 1e-4
    return loose * (sum(map(abs, values)) + 1e-2 * claim.size)


def _agrees(probe: Subject, claim: _Claim) -> bool:
    """A quick look: two gradients, no error bar."""
    h = 1e-4 if probe.eps < 1e-10 else 1e-2
    ahead, behind = (
        probe.run(
            [x + t * u for x, u in zip(probe.tensors, claim.direction, strict=True)]
        )
        for t in (h, -h)
    )
    triples = zip(claim.weights, ahead, behind, strict=True)
    seen = sum(inner(w, a - b) for w, a, b in triples) / (2 * h)
    claimed = sum(claim.slopes)
    return abs(seen - claimed) <= 1e-2 * _slack(probe, claim, seen, claimed)


def _contradicted(
    probe: Subject, claim: _Claim, step: float | None = None, only: int | None = None
) -> bool:
    along: list[Tensor | None] = list(claim.direction)
    claimed = sum(claim.slopes)
    if only is not None:
        along = [u if i == only else None for i, u in enumerate(along)]
        claimed = claim.slopes[only]
    seen = derivative(probe, claim.weights, along, step)
    if not seen.finite or not seen.smooth:
        return False
    return not seen.allows(claimed, _slack(probe, claim, seen.value, claimed))


def _chosen(subject: Subject) -> bool:
    """Whether x̄ is a surrogate, of the whole or of a Function inside.

    Around a surrogate the graph of x̄ leads through its backward once more: what comes
    out is chosen too.
    """
    if any(recognise(subject, i) for i in range(len(subject.places))):
        return True
    if is_bare(subject):
        return False
    with calls_recorded(functions(subject)) as calls:
        subject.run(subject.fresh())
    inside = [subject_of(call, subject) for call in calls]
    return any(
        recognise(inner, i)
        for inner in inside
        if inner is not None
        and not isinstance(attempt(lambda inner=inner: inner.gradients), Crash)
        for i in range(len(inner.places))
    )


def _blame(subject: Subject, probe: Subject, claim: _Claim) -> Iterator[Mismatch]:
    found = [i for i in range(len(probe.places)) if _contradicted(probe, claim, only=i)]
    silent = [i for i in found if claim.unreached[i]]
    names = ", ".join(probe.input_names[i] for i in found) or "its inputs"
    hint = "save inputs and outputs with ctx.save_for_backward and compute in torch ops"
    if silent and len(silent) == len(found):
        message = (
            f"double backward is silently zero: the gradient depends on {names}, but "
            "its graph does not lead there"
        )
        hint += ", or mark the backward @once_differentiable"
    else:
        message = f"double backward is silently wrong with respect to {names}"
    yield Mismatch(
        _CODE,
        "warning",
        message,
        hint=hint,
        numbers={"claimed": sum(claim.slopes)},
        subject=subject,
    )


def _crashed(crash: Crash, subject: Subject) -> Mismatch:
    if refuses(crash.error):
        return Mismatch(
            _CODE,
            "note",
            f"there is no second derivative, and it says so: {crash}",
            verdict="correct",
        )
    chosen = _chosen(subject)
    return Mismatch(
        _CODE,
        "note" if chosen else "warning",
        f"double backward raises {crash}",
        verdict="correct" if chosen else "fragile",
        hint="compute the gradient in differentiable torch ops, out of place, or mark "
        "the backward @once_differentiable",
    )
