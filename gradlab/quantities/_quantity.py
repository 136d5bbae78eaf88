"""What every quantity is: a name, the moments it needs, and a formula over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ._moment import Moment

Feed = Literal[
    "gradient",
    "clipping",
    "update",
    "step",
    "previous",
    "microbatch",
    "rank",
    "activation",
]
"""The pair (value, gradient) that a quantity's moments are measured of.

`gradient`: a parameter and its gradient. `clipping`: a gradient before clipping and
after it. `update`: a parameter and what the optimizer
added to it. `step`: a gradient and the update it led to. `previous`: the gradient read
before and the one read now. `microbatch`: the noise of a microbatch's gradient and the
mean gradient, known by their squares only. `rank`: a parameter and this rank's own
gradient, before ranks are averaged. `activation`: a module's output and the gradient of
it.
"""


class Quantity(ABC):
    """A number measured of a tensor and its gradient, of a layer, or of the model.

    A subclass is a frozen dataclass with the facts below and `__call__`. The monitor
    computes the moments, all of them at once, and combines those of parts; a quantity
    never sees a tensor.

    Attributes:
        name: The column of the snapshot and the first segment of the tag.
        moments: What it is made of.
        feed: What the moments are measured of.
    """

    name: str
    feed: ClassVar[Feed] = "gradient"
    moments: tuple[Moment, ...]

    def moments_of(self, module: nn.Module) -> tuple[Moment, ...] | None:
        """The moments to measure of one module's output; only of activations.

        Args:
            module: The module.

        Returns:
            As many as `moments`; None where the quantity has no meaning.
        """
        return self.moments

    @abstractmethod
    def __call__(
        self, count: Float64[Tensor, "*rows"], *moments: Float64[Tensor, "*rows"]
    ) -> Float64[Tensor, "*rows"]:
        """The number of each row: of a tensor, or of several taken as one.

        Args:
            count: How many entries each row has.
            *moments: Its moments, in the order of `moments`, on the host.
        """


def ratio(
    part: Float64[Tensor, "*rows"], whole: Float64[Tensor, "*rows"]
) -> Float64[Tensor, "*rows"]:
    """Part / whole, where nothing of nothing is 0, and something of nothing infinite.

    Args:
        part: Not negative, or NaN.
        whole: Not negative, or NaN.
    """
    return torch.where(part == 0, whole * 0, part / whole)
