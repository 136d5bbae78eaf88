"""The Jacobian of an opaque forward by finite differences, measured once.

Where autograd cannot follow the forward, a diagnosis still wants the true gradient for
many grad_outputs: Jᵀ v of one J costs what a single gradient by differences does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradlab.subject import Subject


def measured_jacobian(subject: Subject, place: int) -> list[Tensor]:
    """Differentiates every output by every entry of one real input.

    Args:
        subject: The function and the point.
        place: Index into `subject.tensors`.

    Returns:
        For each output ∂y/∂x, of shape [entries of x, entries of y].
    """
    x = subject.tensors[place]
    size = float(torch.linalg.vector_norm(x)) / math.sqrt(x.numel()) or 1.0
    h = (1e-4 if subject.eps < 1e-10 else 1e-2) * size
    rows: list[list[Tensor]] = [[] for _ in subject.outputs]
    for index in range(x.numel()):
        step = torch.zeros_like(x).reshape(-1)
        step[index] = h
        at = [_outputs(subject, place, k * step.view(x.shape)) for k in (-2, -1, 1, 2)]
        for row, mm, m, p, pp in zip(rows, *at, strict=True):
            row.append((8 * (p - m) - (pp - mm)).reshape(-1) / (12 * h))
    return [torch.stack(row) for row in rows]


def transposed_product(
    jacobians: Sequence[Tensor], cotangents: Sequence[Tensor], x: Tensor
) -> Tensor | None:
    """Jᵀ v.

    Args:
        jacobians: What `measured_jacobian` returned.
        cotangents: A grad_output for each output.
        x: The input.

    Returns:
        The gradient, of the shape of x; None where x or an output is complex.
    """
    if x.is_complex() or any(v.is_complex() for v in cotangents):
        return None
    total = torch.zeros(x.numel(), dtype=x.dtype, device=x.device)
    for jacobian, v in zip(jacobians, cotangents, strict=True):
        total = total + (jacobian @ v.reshape(-1).to(jacobian.dtype)).to(x.dtype)
    return total.view(x.shape)


def _outputs(subject: Subject, place: int, step: Tensor) -> tuple[Tensor, ...]:
    tensors = [t.clone() for t in subject.tensors]
    tensors[place] = tensors[place] + step
    with torch.no_grad():
        return tuple(y.detach().clone() for y in subject.run(tensors))


def measurable(subject: Subject, place: int, most: int) -> bool:
    """Whether it is cheap enough, and real.

    Args:
        subject: The function and the point.
        place: Index into `subject.tensors`.
        most: How many entries the input may have.
    """
    x, ys = subject.tensors[place], subject.outputs
    entries = x.numel() * sum(y.numel() for y in ys)
    real = not x.is_complex() and not any(y.is_complex() for y in ys)
    return real and x.numel() <= most and entries <= 1e6
