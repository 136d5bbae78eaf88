"""`Moment`: what is computed of a tensor on its device, so that parts make a whole.

A norm over a layer is made of the norms of its parameters, and that of a sharded
parameter of the norms of its shards. A quantity is a formula over moments; several
quantities share a moment, and all moments of a step come to the host in one transfer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

Reduce = Literal["norm", "sum", "max"]
"""How the moments of parts make that of the whole: √Σ m², Σ m, max m."""

Of = Literal["gradient", "value", "units", "input"]
"""What a moment looks at: of a pair, or of other things that a module's call leaves.

`input` is the gradient of the module's input, as far as it came through the module.
`units` are two vectors: which units had a nonzero output, and a nonzero gradient.
"""


class Moment(ABC):
    """A number of a tensor and its gradient that parts can be combined from.

    A subclass is a frozen dataclass. It measures all tensors of a device at once, on
    that device, and never asks for a number on the host.

    Attributes:
        reduce: How parts combine.
        degree: The power of c by which it grows when the gradient is multiplied by c:
            how a loss scale is taken out again.
        of: What it looks at where the two are not there at the same time.
    """

    reduce: ClassVar[Reduce]
    of: Of = "gradient"
    degree: int

    @property
    def measured_as(self) -> Moment:
        """The moment whose number on the device is all this one needs: itself."""
        return self

    @abstractmethod
    def __call__(
        self, values: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Float[Tensor, "n ..."]:
        """Measure n tensors of one device.

        Args:
            values: The n tensors.
            grads: Their gradients.

        Returns:
            One number for each, on their device; more if `refine` makes one of them.
        """

    def of_rows(
        self, values: Float[Tensor, "n k"], grads: Float[Tensor, "n k"]
    ) -> Float[Tensor, " n"]:
        """Measure the n rows of a tensor, as n tensors.

        Args:
            values: The rows.
            grads: Their gradients.

        Returns:
            One number for each, on their device.
        """
        return self(values.unbind(), grads.unbind())

    def refine(
        self,
        values: Sequence[Tensor],
        grads: Sequence[Tensor],
        numbers: Float64[Tensor, "n ..."],
        scale: float | Tensor = 1.0,
    ) -> Float64[Tensor, " n"]:
        """Measure again the few for which the first number was not good enough.

        Args:
            values: The tensors.
            grads: Their gradients.
            numbers: What `measured_as` gave, on the host.
            scale: What the gradients were multiplied by, for a moment that is of no
                degree in it.

        Returns:
            The numbers to go by.
        """
        return numbers

    def combine(
        self, numbers: Float64[Tensor, " n"], whole: Int64[Tensor, " n"], wholes: int
    ) -> Float64[Tensor, " wholes"]:
        """The moments of wholes from those of their parts, on the host.

        Args:
            numbers: The moments of the parts.
            whole: To which whole each part belongs.
            wholes: How many there are; one without a part gets 0.
        """
        # NumPy's calls cost a third of torch's, which counts for some hundred numbers.
        part, of = numbers.numpy(), whole.numpy()
        if self.reduce == "sum":
            return torch.from_numpy(_sums(of, part, wholes))
        if self.reduce == "max":
            return torch.from_numpy(_largest(of, part, wholes))
        if part.size and part.min() >= _LOW and part.max() <= _HIGH:
            return torch.from_numpy(np.sqrt(_sums(of, part * part, wholes)))
        # Relative to the largest, so that no square overflows or vanishes.
        top = _largest(of, part, wholes)
        with np.errstate(invalid="ignore"):
            unit = np.where((top > 0) & (top < np.inf), top, 1.0)
        squares = _sums(of, (part / unit[of]) ** 2, wholes)
        return torch.from_numpy(np.sqrt(squares) * unit)


Numbers = NDArray[np.float64]


def _sums(of: NDArray[np.int64], parts: Numbers, wholes: int) -> Numbers:
    # Of no parts it counts, in whole numbers.
    return np.bincount(of, parts, wholes).astype(np.float64, copy=False)


def _largest(of: NDArray[np.int64], parts: Numbers, wholes: int) -> Numbers:
    found = np.zeros(wholes)
    with np.errstate(invalid="ignore"):
        np.maximum.at(found, of, parts)
    return found


# Numbers whose squares float64 holds, with room to spare.
_LOW, _HIGH = 1e-120, 1e120


def stored(tensor: Tensor) -> Tensor:
    """The numbers a tensor consists of; duplicates in a sparse one are summed.

    Args:
        tensor: Dense or sparse.
    """
    if tensor.layout is torch.strided:
        return tensor
    return (tensor.coalesce() if tensor.layout is torch.sparse_coo else tensor).values()
