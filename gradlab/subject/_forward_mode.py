"""The true gradient by forward mode, where a forward switches reverse mode off.

ẏ = J u is computed beside y by dual numbers, whatever grad mode says; with one unit
vector u for each entry, x̄ᵢ = Re⟨ȳ, J eᵢ⟩. For small inputs of a bare Function only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.utils import _pytree as pytree

from ._functions import FunctionClass, calls_recorded, own_forward
from ._subject import Grads, Subject, inner

MOST = 600
"""Up to so many entries of all inputs together."""


def forward_mode_gradients(
    subject: Subject, classes: Sequence[FunctionClass], cotangents: Sequence[Sequence]
) -> list[Grads]:
    """The gradient of every input for several cotangents.

    Args:
        subject: The function and the point, one application of one Function.
        classes: The Function classes inside.
        cotangents: Several times a grad_output for each output.

    Returns:
        One gradient for each of the cotangents.

    Raises:
        ValueError: If the input is too large or complex.
    """
    body = _body(subject, classes)
    if sum(x.numel() for x in subject.tensors) > MOST:
        raise ValueError(f"more than {MOST} entries")
    if any(x.is_complex() for x in subject.tensors):
        raise ValueError("complex inputs")
    found = [[torch.zeros_like(x) for x in subject.tensors] for _ in cotangents]
    for place, x in enumerate(subject.tensors):
        for index in range(x.numel()):
            unit = torch.zeros_like(x).reshape(-1)
            unit[index] = 1.0
            tangents = _push(subject, body, place, unit.view(x.shape))
            for grads, vs in zip(found, cotangents, strict=True):
                slope = sum(
                    inner(v, t)
                    for v, t in zip(vs, tangents, strict=True)
                    if t is not None
                )
                grads[place].view(-1)[index] = slope
    return [tuple(grads) for grads in found]


def _push(
    subject: Subject, body: Callable[..., Any], place: int, tangent: Tensor
) -> list[Tensor | None]:
    """The tangent of each differentiable output."""
    args = [a.clone() if isinstance(a, Tensor) else a for a in subject.leaves]
    with forward_ad.dual_level():
        k = subject.places[place]
        args[k] = forward_ad.make_dual(args[k], tangent)
        outputs = pytree.tree_leaves(body(*args))
        floats = [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]
        pairs = zip(floats, subject.differentiable, strict=True)
        return [forward_ad.unpack_dual(y).tangent for y, keep in pairs if keep]


def _body(subject: Subject, classes: Sequence[FunctionClass]) -> Callable[..., Any]:
    with calls_recorded(classes) as calls:
        subject.run(subject.fresh())
    if len(calls) != 1 or len(calls[0].args) != len(subject.leaves):
        raise ValueError("more than one application of a Function")
    return own_forward(calls[0])
