"""Moments of a module's output and of its gradient, and the activity of its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ._moment import Moment, Of, Reduce
from ._moments import Norm


@dataclass(frozen=True)
class Total(Moment):
    """Σ t over the entries of the values.

    Example:
        >>> Total()([torch.tensor([1.0, 2.0])], []).tolist()
        [3.0]
    """

    of: ClassVar[Of] = "value"
    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Add up the entries of each tensor.

        Args:
            values: The tensors.
            grads: Their gradients do not matter here.

        Returns:
            One sum for each.
        """
        # Half precision would lose most of a long sum.
        return torch.stack(
            [
                value.sum(dtype=torch.promote_types(value.dtype, torch.float32))
                for value in values
            ]
        )


@dataclass(frozen=True)
class OutsideCount(Moment):
    """How many entries of the values are not between two bounds; NaN is not.

    Attributes:
        low: The lower bound, itself inside.
        high: The upper bound, itself inside.

    Example:
        >>> OutsideCount(-1.0, 1.0)([torch.tensor([0.0, 2.0])], []).tolist()
        [1.0]
    """

    low: float
    high: float
    of: ClassVar[Of] = "value"
    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Count the entries outside.

        Args:
            values: The tensors.
            grads: Their gradients do not matter here.

        Returns:
            One count for each.
        """
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        # One comparison instead of two; a NaN is not inside.
        inside = [((v - middle).abs_() <= half).sum() for v in values]
        counts = [v.numel() - n for v, n in zip(values, inside, strict=True)]
        return torch.stack(counts).float()


@dataclass(frozen=True)
class InputGradNorm(Norm):
    """√(m/n) ‖x̄‖: x̄ with n entries is what a module with m outputs sends back.

    Over ‖ȳ‖ it is the ratio of the root mean squares of the two.
    """

    of: Of = "input"

    @property
    def degree(self) -> int:
        """1: it is of a gradient."""
        return 1


@dataclass(frozen=True)
class InactiveCount(Moment):
    """How many units had no nonzero output, or no nonzero gradient, in a whole step.

    It is measured of two vectors `[units]` that are true where a unit had one.

    Example:
        >>> output, grad = torch.tensor([True, True]), torch.tensor([True, False])
        >>> InactiveCount()([output], [grad]).tolist()
        [1.0]
    """

    of: ClassVar[Of] = "units"
    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Count the inactive units.

        Args:
            values: Which units had a nonzero output.
            grads: Which units had a nonzero gradient.

        Returns:
            One count for each.
        """
        ends = list(accumulate(value.numel() for value in values))
        inactive = ~(torch.cat(list(values)) & torch.cat(list(grads)))
        # One kernel for all: a count is a difference of running sums.
        sums = inactive.cumsum(0)[torch.tensor(ends, device=inactive.device) - 1]
        return torch.diff(sums, prepend=sums.new_zeros(1)).float()


@dataclass(frozen=True)
class UnitCount(Moment):
    """How many units there are."""

    of: ClassVar[Of] = "units"
    reduce: ClassVar[Reduce] = "sum"
    degree: ClassVar[int] = 0

    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, " n"]:
        """Count the units.

        Args:
            values: Vectors over the units.
            grads: The same of gradients.

        Returns:
            One count for each.
        """
        counts = [float(value.numel()) for value in values]
        return torch.tensor(counts, device=values[0].device)


def active_units(tensor: Tensor, axis: int) -> Bool[Tensor, " units"]:
    """Which units are not 0 everywhere: the indices along one axis; NaN is not 0.

    Args:
        tensor: `[..., units, ...]`, not empty.
        axis: Where its units are.
    """
    axis %= tensor.ndim
    others = [i for i in range(tensor.ndim) if i != axis]
    if not others:
        return tensor != 0
    if tensor.device.type == "cpu":
        # Mostly one row tells, and looking at a number costs no transfer.
        row = tensor
        for i in reversed(others):
            row = row.select(i, tensor.shape[i] // 2)
        if bool(row.all()):
            return row != 0
        few = 1 if len(others) > 1 else min(16, tensor.shape[others[0]])
        first = tensor.narrow(others[0], 0, few)
        found = first.abs().amax(others) != 0
        if bool(found.all()):
            return found
    return tensor.abs().amax(others) != 0


def is_activation_function(module: nn.Module) -> bool:
    """Whether a module is a function without weights; a PReLU's slope is none.

    Args:
        module: Any module.
    """
    return isinstance(module, nn.PReLU) or not any(
        parameter is not None for parameter in module._parameters.values()
    )
