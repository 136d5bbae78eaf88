"""What a gradient is held against, found without being asked for one.

In this order: the caller's reference; autograd of each Function's own forward; forward
mode through it, for small inputs; and finite differences. The others count only if they
agree with finite differences along one random direction for each input: a `.data`, a
`.item()` or NumPy in a forward breaks them without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ._finite_differences import (
    Derivative,
    derivative,
    gradient,
    is_symmetric,
    natural_directions,
    symmetrised,
)
from ._forward_mode import forward_mode_gradients
from ._functions import FunctionClass, find_functions, own_forward_differentiated
from ._subject import Grads, Subject, Tensors, filled, inner

SMALL = 600
"""Up to so many entries a gradient is worth computing entry by entry."""


@dataclass(frozen=True)
class Truth:
    """The gradient as it should be.

    Attributes:
        kind: Where it comes from, in words.
        functions: The Function classes inside the subject.
        gradients: For each of the subject's cotangents the gradient of each input;
            None when only directional derivatives are known.
        directions: A random direction for each input.
        derivatives: The derivative along each of them by differences, for the first
            cotangents; None for an empty input.
        rejected: Candidates that disagree with finite differences, and how.
        symmetric: For which inputs only symmetric directions mean anything: a function
            of a symmetric matrix may read one triangle of it.
    """

    kind: str
    functions: tuple[FunctionClass, ...]
    gradients: tuple[Grads, Grads] | None
    directions: Tensors
    derivatives: tuple[Derivative | None, ...]
    rejected: tuple[str, ...] = field(default=())
    symmetric: tuple[bool, ...] = field(default=())


def truth(subject: Subject) -> Truth:
    """Finds the truth about a subject, once.

    Args:
        subject: The function and the point.

    Returns:
        The same object every time it is asked for the same subject.
    """
    cache = subject.__dict__
    if "_truth" not in cache:
        cache["_truth"] = _find(subject)
    return cache["_truth"]


def functions(subject: Subject) -> tuple[FunctionClass, ...]:
    """The Function classes inside a subject.

    Args:
        subject: The function and the point.
    """
    cache = subject.__dict__
    if "_functions" not in cache:
        cache["_functions"] = find_functions(subject.run(subject.fresh()))
    return cache["_functions"]


def is_bare(subject: Subject) -> bool:
    """Whether a subject is one application of one Function and nothing around it.

    Args:
        subject: The function and the point.
    """
    outputs = subject.run(subject.fresh())
    node: Any = outputs[0].grad_fn
    return (
        getattr(node, "_forward_cls", None) is not None
        and all(y.grad_fn is node for y in outputs)
        and all(
            child is None or type(child).__name__ == "AccumulateGrad"
            for child, _ in node.next_functions
        )
    )


def own_gradient(
    subject: Subject,
    cotangents: Sequence[Tensor],
    tensors: Sequence[Tensor] | None = None,
) -> Grads:
    """The gradient with autograd of its own forward in place of every backward.

    Args:
        subject: The function and the point.
        cotangents: A grad_output for each output.
        tensors: The point to run at, instead of the subject's.
    """
    with own_forward_differentiated(functions(subject)):
        try:
            return subject.vjp(cotangents, tensors)
        except RuntimeError as error:
            if "leaf Variable" not in str(error):
                raise
        # Inside a Function it may write to what comes from a leaf, outside it may not.
        return subject.vjp(cotangents, tensors, _on_copies(subject.call))


def _on_copies(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        return call(*(a.clone() if isinstance(a, Tensor) else a for a in args))

    return run


def expected_gradient(
    subject: Subject, cotangents: Sequence[Tensor], place: int
) -> Tensor | None:
    """The true gradient of one input for any cotangents.

    Args:
        subject: The function and the point.
        cotangents: A grad_output for each output.
        place: Index into `subject.tensors`.

    Returns:
        The gradient; None where it would take too many finite differences.
    """
    found = truth(subject)
    x = subject.tensors[place]
    if found.gradients is None:
        if x.numel() > SMALL:
            return None
        return gradient(subject, cotangents, place, found.symmetric[place])
    if found.kind == GIVEN:
        grads = subject.vjp(cotangents, call=subject.reference)
    elif found.kind == FORWARD:
        (grads,) = forward_mode_gradients(subject, found.functions, [cotangents])
    else:
        grads = own_gradient(subject, cotangents)
    return filled(grads[place], x)


GIVEN = "the reference given"
OWN = "autograd of its own forward"
FORWARD = "forward mode through its own forward"
DIFFERENCES = "finite differences"


def _find(subject: Subject) -> Truth:
    symmetric = tuple(map(is_symmetric, subject.tensors))
    found = _with_directions(subject, (False,) * len(symmetric))
    if found.gradients is None and any(symmetric):
        again = _with_directions(subject, symmetric)
        return again if again.gradients is not None else found
    return found


def _with_directions(subject: Subject, symmetric: tuple[bool, ...]) -> Truth:
    found = functions(subject)
    directions = tuple(
        symmetrised(u) if only else u
        for u, only in zip(natural_directions(subject), symmetric, strict=True)
    )
    derivatives = tuple(
        _along(subject, directions, place) for place in range(len(directions))
    )
    rejected = []
    both = subject.cotangents
    gradients = None
    kind = DIFFERENCES
    ways: list[tuple[str, Callable[[], Iterable[Grads]]]] = [
        (GIVEN, lambda: [subject.vjp(v, call=subject.reference) for v in both]),
        (OWN, lambda: [own_gradient(subject, v) for v in both]),
        (FORWARD, lambda: forward_mode_gradients(subject, found, both)),
    ]
    for name, way in ways[subject.reference is None :]:
        if name == FORWARD and not found:
            continue
        try:
            first, second = way()
        except Exception as error:
            rejected.append(f"{name} raised {type(error).__name__}: {error}")
            continue
        why = _disagreement(subject, first, directions, derivatives)
        if why is None:
            kind, gradients = name, (first, second)
            break
        rejected.append(f"{name} {why}")
    return Truth(
        kind, found, gradients, directions, derivatives, tuple(rejected), symmetric
    )


def _along(subject: Subject, directions: Tensors, place: int) -> Derivative | None:
    if not directions[place].numel():
        return None
    only: list[Tensor | None] = [None] * len(directions)
    only[place] = directions[place]
    return derivative(subject, subject.cotangents[0], only)


def _disagreement(
    subject: Subject,
    grads: Grads,
    directions: Tensors,
    derivatives: Sequence[Derivative | None],
) -> str | None:
    """Why a candidate is not the derivative, if it is not."""
    for name, r, u, along in zip(
        subject.input_names, grads, directions, derivatives, strict=True
    ):
        if along is None or not along.finite:
            continue
        claimed = 0.0 if r is None else inner(r, u)
        if r is not None and not bool(torch.isfinite(r).all()):
            continue
        size = abs(along.value) + abs(claimed)
        slack = (1e-2 if subject.eps > 1e-10 else 1e-5) * size
        if not along.allows(claimed, slack):
            return (
                f"gives {claimed:.6g} for {name} along a random direction, finite "
                f"differences {along.value:.6g} ± {along.bar:.0e}"
            )
    return None
