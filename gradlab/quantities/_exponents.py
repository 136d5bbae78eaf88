"""The exponents of a gradient's entries, counted in one pass over a sample of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ._moment import Moment, Reduce, stored
from ._sample import layout

BINS = 257
"""Exact zeros, what is below 2⁻¹²⁶, the octaves 2⁻¹²⁶ to 2¹²⁷, what is not finite."""

_LOWEST = -127  # Bin j holds what is below 2^(j - 127) and not below half of it.


@dataclass(frozen=True)
class Exponents(Moment):
    """How many entries have which exponent: the octaves of float32.

    Counted in a sample of a large tensor (at least 4096 entries, spread over it) and
    multiplied by what that leaves out; a tensor of up to 4096 entries is counted whole.
    What float64 holds beyond the octaves of float32 counts to the first and the last.
    Of a complex tensor real and imaginary parts are counted.
    """

    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, "n 257"]:
        """Count the entries of each gradient, zeros that a sparse one leaves out too.

        Args:
            values: The tensors; their values do not matter here.
            grads: Their gradients.

        Returns:
            The counts, bin by bin.
        """
        tensors = [stored(grad) for grad in grads]
        places = layout(tensors)
        rows = places.draw(tensors)
        owners, weights, padding = places.on(rows.device)
        bins = (_exponent_bits(rows) + (rows != 0)).long()
        bins += owners[:, None] * BINS
        one = torch.ones((), dtype=torch.int32, device=rows.device)
        counts = torch.zeros(
            len(tensors) * BINS, dtype=torch.int32, device=rows.device
        ).scatter_add_(0, bins.view(-1), one.expand(bins.numel()))
        counts = counts.view(-1, BINS)
        counts[:, 0] -= padding
        found = counts * weights[:, None]
        for i, (grad, tensor) in enumerate(zip(grads, tensors, strict=True)):
            if tensor is not grad:
                found[i, 0] += grad.numel() - tensor.numel()
        return found


@dataclass(frozen=True)
class ZeroCount(Moment):
    """How many entries of the gradient are exactly zero, estimated from `Exponents`."""

    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    @property
    def measured_as(self) -> Moment:
        """The exponents."""
        return Exponents()

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Count the zeros of each gradient.

        Args:
            values: The tensors; their values do not matter here.
            grads: Their gradients.

        Returns:
            One count for each.
        """
        return Exponents()(values, grads)[:, 0]

    def refine(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        numbers: Float64[Tensor, "n 257"],
        scale: float | Tensor = 1.0,
    ) -> Float64[Tensor, " n"]:
        """The first bin.

        Args:
            values: The tensors.
            grads: Their gradients.
            numbers: Their exponents.
            scale: Does not matter here.

        Returns:
            The counts.
        """
        return numbers[:, 0]


@dataclass(frozen=True)
class MagnitudeCount(Moment):
    """How many entries are not zero and low ≤ |g| < high, estimated from `Exponents`.

    Exact bounds are powers of two; between two of them, and where a loss scale is none,
    entries are taken to be spread evenly over the octave.

    Args:
        low: The smallest magnitude.
        high: The magnitude from which on nothing counts; infinite counts all that is
            finite.
    """

    low: float = 0.0
    high: float = math.inf
    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    @property
    def measured_as(self) -> Moment:
        """The exponents."""
        return Exponents()

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Count such entries of each gradient.

        Args:
            values: The tensors; their values do not matter here.
            grads: Their gradients.

        Returns:
            One count for each.
        """
        numbers = Exponents()(values, grads).to("cpu", torch.float64)
        return self.refine(values, grads, numbers).to(grads[0].device)

    def refine(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        numbers: Float64[Tensor, "n 257"],
        scale: float | Tensor = 1.0,
    ) -> Float64[Tensor, " n"]:
        """The octaves between the bounds.

        Args:
            values: The tensors.
            grads: Their gradients.
            numbers: Their exponents.
            scale: What the gradients, but not the bounds, were multiplied by.

        Returns:
            The counts.
        """
        factor = float(scale)
        high = _below(numbers, self.high * factor)
        return high - _below(numbers, self.low * factor) if self.low else high


def _below(counts: Tensor, bound: float) -> Tensor:
    """How many finite entries other than zero have a smaller magnitude."""
    last = BINS - 2.0
    at = min(max(math.log2(bound) - _LOWEST, 0.0), last) if bound < math.inf else last
    full = int(at)
    rest = counts[:, full + 1] * (at - full) if at > full else 0.0
    return counts[:, 1 : full + 1].sum(dim=1) + rest


def _exponent_bits(rows: Tensor) -> Tensor:
    """0 below 2⁻¹²⁶, 1 to 254 for the octaves from there on, 255 if not finite."""
    if rows.dtype == torch.float32:
        return (rows.view(torch.int32) >> 23) & 255
    # float64, whose exponents go further on both sides.
    bits = (rows.view(torch.int64) >> 52) & 2047
    return torch.where(bits == 2047, 255, (bits - (1023 - 127)).clamp(0, 254))
