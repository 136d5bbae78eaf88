"""Directional derivatives of a forward by differences, with an error bar of their own.

φ(t) = Σ Re⟨v, f(x + t u)⟩        v the cotangents, u one direction for all inputs
φ'(0) ≈ (φ(−2h) − 8 φ(−h) + 8 φ(h) − φ(2h)) / 12h          error O(h⁴) + O(ε |φ| / h)

at h and at h/4: the distance of the two is the error bar. The one-sided derivatives
(−3 φ(0) ± 4 φ(±h) ∓ φ(±2h)) / 2h tell a kink from a smooth point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._subject import Subject, Tensors, inner, largest_entry, normal_like


@dataclass(frozen=True)
class Derivative:
    """A derivative along one direction, as differences see it.

    Attributes:
        value: The central one, of fourth order.
        bar: Its error bar.
        right: The one-sided derivative along +u.
        left: The one-sided derivative along −u, with the sign of the central one.
        side_bar: The error bar of the one-sided ones.
        change: The largest change of any output entry within the steps.
    """

    value: float
    bar: float
    right: float
    left: float
    side_bar: float
    change: float

    @property
    def finite(self) -> bool:
        """Whether the forward was finite all along the step."""
        return math.isfinite(self.value) and math.isfinite(self.right + self.left)

    @property
    def smooth(self) -> bool:
        """Whether both sides agree: no kink within reach of the step."""
        return abs(self.right - self.left) <= 20 * self.side_bar + 20 * self.bar

    def allows(self, value: float, slack: float = 0.0) -> bool:
        """Whether a directional derivative may be `value`: inside both sides.

        Args:
            value: What the gradient claims.
            slack: Added to the error bars.
        """
        if self.smooth:
            return abs(value - self.value) <= 20 * self.bar + slack
        low, high = sorted((self.left, self.right))
        margin = 20 * self.side_bar + slack
        return low - margin <= value <= high + margin


def derivative(
    subject: Subject,
    cotangents: Sequence[Tensor],
    directions: Sequence[Tensor | None],
    step: float | None = None,
) -> Derivative:
    """Differentiates ⟨cotangents, f⟩ along a direction by differences.

    Args:
        subject: The function and the point.
        cotangents: v, one for each output.
        directions: u, one for each input; None where the input stays.
        step: h; by default 1e-4 in float64 and 1e-2 in float32, which suits directions
            of the size of the inputs.

    Returns:
        The derivative with its error bar.
    """
    h = step or (1e-4 if subject.eps < 1e-10 else 1e-2)
    at = {0.0: _outputs(subject, directions, 0.0)}

    def phi(t: float) -> float:
        if t not in at:
            at[t] = _outputs(subject, directions, t)
        changes = zip(cotangents, at[t], at[0.0], strict=True)
        return sum(inner(v, y - y0) for v, y, y0 in changes)

    def central(h: float) -> float:
        return (8 * (phi(h) - phi(-h)) - (phi(2 * h) - phi(-2 * h))) / (12 * h)

    def right(h: float) -> float:
        return (4 * phi(h) - phi(2 * h)) / (2 * h)

    coarse, fine = central(h), central(h / 4)
    sides = [right(h), right(h / 4), right(-h), right(-h / 4)]
    size = math.sqrt(
        sum(inner(v * y, v * y) for v, y in zip(cotangents, at[0.0], strict=True))
    )
    rounding = 4 * subject.eps * size / h
    bar = abs(coarse - fine) + 4 * rounding + 1e-300
    side_bar = max(abs(sides[0] - sides[1]), abs(sides[2] - sides[3])) + 8 * rounding
    change = max(
        (
            largest_entry(y - y0)
            for ys in at.values()
            for y, y0 in zip(ys, at[0.0], strict=True)
        ),
        default=0.0,
    )
    return Derivative(fine, bar, sides[1], sides[3], side_bar, change)


def natural_directions(subject: Subject, seed: int = 0) -> Tensors:
    """A signed normal direction for each input, of the size of its entries.

    Args:
        subject: The function and the point.
        seed: Another seed for another direction.
    """
    generator = torch.Generator().manual_seed(subject.seed + 1000 + seed)
    return tuple(
        normal_like(x, generator) * (_rms(x) or 1.0) if x.numel() else x
        for x in subject.tensors
    )


def is_symmetric(x: Tensor) -> bool:
    """Whether a tensor holds symmetric (Hermitian) matrices, and not by being flat.

    Args:
        x: Any tensor.
    """
    if x.ndim < 2 or x.shape[-1] != x.shape[-2] or x.shape[-1] < 2 or not x.numel():
        return False
    return torch.equal(x, x.mH) and not bool((x == x.reshape(-1)[0]).all())


def symmetrised(x: Tensor) -> Tensor:
    """The symmetric (Hermitian) part of each matrix.

    Args:
        x: A tensor of square matrices.
    """
    return (x + x.mH) / 2


def gradient(
    subject: Subject,
    cotangents: Sequence[Tensor],
    place: int,
    symmetric: bool = False,
) -> Tensor:
    """The whole gradient of ⟨cotangents, f⟩ by differences, an entry at a time.

    Four forwards an entry, twice that for a complex one: for small inputs only.

    Args:
        subject: The function and the point.
        cotangents: v, one for each output.
        place: Index into `subject.tensors`.
        symmetric: Whether to move opposite entries together.

    Returns:
        The gradient, of the shape of that input; its symmetric part if asked so.
    """
    x = subject.tensors[place]
    h = (1e-4 if subject.eps < 1e-10 else 1e-2) * (_rms(x) or 1.0)
    result = torch.zeros_like(x).reshape(-1)
    for index in range(x.numel()):
        for unit in torch.tensor([1.0, 1j] if x.is_complex() else [1.0]).to(x):
            direction = torch.zeros_like(x).reshape(-1)
            direction[index] = unit
            directions: list[Tensor | None] = [None] * len(subject.places)
            moved = direction.view(x.shape)
            directions[place] = symmetrised(moved) if symmetric else moved
            at = {
                t: _outputs(subject, directions, t * h) for t in (-2.0, -1.0, 1.0, 2.0)
            }
            slope = sum(
                8 * inner(v, p - m) - inner(v, pp - mm)
                for v, m, p, mm, pp in zip(
                    cotangents, at[-1.0], at[1.0], at[-2.0], at[2.0], strict=True
                )
            ) / (12 * h)
            result[index] = result[index] + slope * unit
    return result.view(x.shape)


def _outputs(
    subject: Subject, directions: Sequence[Tensor | None], t: float
) -> Tensors:
    tensors = [
        x if u is None or t == 0.0 else x + t * u
        for x, u in zip(subject.tensors, directions, strict=True)
    ]
    # They require grad, as in a real run: a forward may ask them.
    return tuple(y.detach().clone() for y in subject.run(subject.fresh(tensors)))


def _rms(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.detach())) / math.sqrt(max(x.numel(), 1))
