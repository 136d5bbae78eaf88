"""The gradient's Euclidean norm, ‖g‖ = √Σᵢ|gᵢ|², as `clip_grad_norm_` defines it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ._quantity import Quantity


@dataclass(frozen=True)
class GradNorm(Quantity):
    """The Euclidean norm of the gradient.

    Squares are accumulated in float32 at least, so that a gradient in half precision
    neither overflows nor vanishes; a norm below 1e-15 or above 1e18, whose squares
    leave float32, is measured again in float64. A sparse gradient has the norm of the
    dense one, a complex one that of its moduli, an empty one the norm 0.

    Example:
        >>> weight, grad = torch.zeros(2), torch.tensor([3.0, 4.0])
        >>> GradNorm()([weight], [grad])
        tensor([5.])
        >>> GradNorm().combine([3.0, 4.0])
        5.0
    """

    name: ClassVar[str] = "grad_norm"
    trusted: ClassVar[tuple[float, float]] = (1e-15, 1e18)

    def __call__(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, " n"]:
        """Measure the norm of each gradient.

        Args:
            values: The tensors; their values do not matter here.
            grads: Their gradients, all on one device.
            dtype: The least precise dtype to accumulate in.

        Returns:
            One norm for each gradient.
        """
        if not grads:
            return torch.empty(0, dtype=dtype)
        stored = [_stored(grad) for grad in grads]
        norms = list(stored)
        for kind in {grad.dtype for grad in stored}:
            where = [i for i, grad in enumerate(stored) if grad.dtype == kind]
            measured = torch._foreach_norm(  # pyright: ignore[reportPrivateImportUsage]
                [stored[i] for i in where], 2, dtype=torch.promote_types(kind, dtype)
            )
            for i, norm in zip(where, measured, strict=True):
                norms[i] = norm
        return torch.stack(norms)

    def combine(self, numbers: Sequence[float]) -> float:
        """The norm of the concatenation, from the norms of its parts.

        Args:
            numbers: The norms of the parts.
        """
        return math.hypot(*numbers)


def _stored(grad: Tensor) -> Tensor:
    """The numbers a gradient consists of; duplicates in a sparse one are summed."""
    if grad.layout is torch.strided:
        return grad
    return (grad.coalesce() if grad.layout is torch.sparse_coo else grad).values()
