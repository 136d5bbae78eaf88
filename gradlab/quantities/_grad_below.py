"""The share of the gradient that a number format would flush or round away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._exponents import MagnitudeCount
from ._moment import Moment
from ._quantity import Quantity, ratio


@dataclass(frozen=True)
class GradBelow(Quantity):
    """The share of nonzero entries below the smallest normal number of a format.

    Down there the format has fewer and fewer bits, and then none. Exact zeros, and what
    is not finite, count neither as part nor as whole. Of a tensor of more than 4096
    entries it is an estimate from a sample. The loss scale is divided out; what a scale
    of 2ᵏ would save shows in `exponent_histogram`.

    Args:
        format: A floating dtype of torch: `float16`, `bfloat16`, `float8_e4m3fn`,
            `float8_e5m2`, … (2⁻¹⁴, 2⁻¹²⁶, 2⁻⁶ and 2⁻¹⁴).

    Raises:
        ValueError: If it is none.

    Example:
        >>> below = GradBelow("float16")
        >>> below.name
        'grad_below_float16'
        >>> below(*torch.tensor([8.0, 1.0, 4.0]))
        tensor(0.2500)
    """

    format: str = "float16"

    def __post_init__(self) -> None:
        dtype = getattr(torch, self.format, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(
                "a number format is the name of a floating dtype of torch, as "
                f"'float16' or 'float8_e4m3fn', got {self.format!r}"
            )

    @property
    def name(self) -> str:
        """The name with the format."""
        return f"grad_below_{self.format}"

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The counts below the smallest normal number, and of all."""
        smallest = torch.finfo(getattr(torch, self.format)).smallest_normal
        return MagnitudeCount(0.0, smallest), MagnitudeCount()

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """Those below over all nonzero entries; 0 where there are none.

        Args:
            count: How many entries there are.
            *moments: How many nonzero ones are below, and how many there are.
        """
        return ratio(*moments)
