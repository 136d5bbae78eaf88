"""Derivatives of the derivative, and stacks of it, are those of the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import (
    GIVEN,
    Crash,
    Grads,
    Mismatch,
    Subject,
    Tensors,
    attempt,
    filled,
    functions,
    grad,
    graph_nodes,
    largest_entry,
    natural_directions,
    truth,
)

from ._difference import listed
from ._refusal import lacks_setup_context

_CODE = "transforms_match_reference"


@dataclass(frozen=True)
class TransformsMatchReference:
    """H u and J V of f = those of the reference, H the Hessian of ⟨ȳ, f⟩, u random.

    H u by double backward, and as torch.func.hessian does, forward mode over reverse;
    J V as torch.func.jacrev does, a stack V of ȳ through one backward. It speaks only
    where a reference of plain torch ops is given and the gradient equals that of it; a
    way that does not exist is for the other checks to tell.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for each way that leads elsewhere."""
        classes = functions(subject)
        if not classes or subject.reference is None or not _real(subject):
            return
        known = truth(subject)
        if known.kind != GIVEN or known.gradients is None or any(known.symmetric):
            return
        gradients = known.gradients
        if any(
            _off(subject, g, r)
            for g, r in zip(subject.gradients, gradients, strict=True)
        ):
            return  # the value checks say so
        ways: list[tuple[str, _Way]] = [("double backward", _double_backward)]
        if not lacks_setup_context(classes):
            ways.append(("torch.func.hessian (forward over reverse)", _forward_over))
            for i, row in enumerate(_rows(subject)):
                if off := _off(subject, row, gradients[i]):
                    yield _mismatch(subject, "torch.func.jacrev", off)
                    break
        for name, way in ways:
            # Twice, along other directions: chance does not come twice.
            off = _along(subject, way, 0)
            if off and _along(subject, way, 1):
                yield _mismatch(subject, f"the second derivative by {name}", off)


_Call = Callable[..., Any] | None
_Way = Callable[[Subject, Tensors, _Call], Grads | None]


def _along(subject: Subject, way: _Way, seed: int) -> list[int]:
    us = natural_directions(subject, 20 + seed)
    found = attempt(lambda: way(subject, us, None))
    if isinstance(found, Crash) or found is None:
        return []
    expected = attempt(lambda: _double_backward(subject, us, subject.reference))
    if isinstance(expected, Crash) or expected is None:
        return []
    return _off(subject, found, expected, us)


def _double_backward(subject: Subject, us: Tensors, call: _Call) -> Grads | None:
    """∂/∂x ⟨x̄, u⟩; None where there is none, or none to trust."""
    xs = subject.fresh()
    ys = subject.run(xs, call)
    if call is not None and any(hasattr(n, "_forward_cls") for n in graph_nodes(ys)):
        return None  # a Function is no better a witness than the one under test
    # They require grad: once_differentiable says nothing where none of them does.
    vs = [v.clone().requires_grad_() for v in subject.cotangents[0]]
    found = grad(ys, xs, vs, create_graph=True)
    reached = [g for g in found if g is not None]
    if any(node.name().endswith("::Error") for node in graph_nodes(reached)):
        return None  # declared absent
    pairs = [
        (g, u)
        for g, u in zip(found, us, strict=True)
        if g is not None and g.requires_grad
    ]
    return grad([g for g, _ in pairs], xs, [u for _, u in pairs])


def _forward_over(subject: Subject, us: Tensors, call: _Call) -> Grads:
    vs = tuple(v.clone() for v in subject.cotangents[0])

    def gradient(*xs: Tensor) -> Tensors:
        return torch.func.vjp(lambda *zs: subject.run(zs, call), *xs)[1](vs)

    xs = tuple(x.clone() for x in subject.tensors)
    return torch.func.jvp(gradient, xs, tuple(u.clone() for u in us))[1]


def _rows(subject: Subject) -> list[Tensors]:
    """The gradients for both ȳ at once; none where torch cannot batch it."""

    def run() -> Tensors:
        pull = torch.func.vjp(lambda *xs: subject.run(xs), *subject.fresh())[1]
        stack = tuple(
            torch.stack(pair) for pair in zip(*subject.cotangents, strict=True)
        )
        return torch.func.vmap(pull)(stack)

    stacks = attempt(run)
    if isinstance(stacks, Crash):
        return []
    return [tuple(s[i].detach() for s in stacks) for i in range(2)]


def _off(
    subject: Subject, found: Grads, expected: Grads, us: Tensors | None = None
) -> list[int]:
    """The inputs where they differ, beyond rounding."""
    off = []
    for place, x in enumerate(subject.tensors):
        g, r = filled(found[place], x).detach(), filled(expected[place], x).detach()
        scale = subject.scale(place, expected)
        if us is not None:
            # The size of a second derivative: all x̄ |u| / |x| that it may add up.
            pairs = zip(subject.gradients[0], us, strict=True)
            sizes = [
                largest_entry(h) * largest_entry(u) for h, u in pairs if h is not None
            ]
            scale = max(scale, sum(sizes) / (largest_entry(x) or 1.0))
        finite = torch.isfinite(r)
        error = largest_entry(torch.where(finite, g - r, torch.zeros_like(r)))
        lost = bool((finite & ~torch.isfinite(g)).any())
        if lost or error > 10 * subject.tolerance * scale:
            off.append(place)
    return off


def _real(subject: Subject) -> bool:
    return not any(t.is_complex() for t in (*subject.tensors, *subject.outputs))


def _mismatch(subject: Subject, what: str, off: list[int]) -> Mismatch:
    names = listed(subject.input_names[i] for i in off)
    return Mismatch(
        _CODE,
        "warning",
        f"{what} is not that of the reference, for {names}",
        hint="the backward runs there on tensors that are differentiated or batched "
        "themselves: compute in torch ops, from saved inputs and outputs",
        subject=subject,
    )
