"""The norm of this rank's own gradient, before ranks are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._moment import Moment
from ._moments import Norm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class RankGradNorm(Quantity):
    """The Euclidean norm of this rank's own gradient, before it is averaged or clipped.

    Under DistributedDataParallel a rank whose norm stands out has other data than the
    others, or a fault. Of shards (FSDP2) no rank has a gradient of its own: there it is
    the norm of the shard.

    Example:
        >>> import torch
        >>> RankGradNorm()(*torch.tensor([2.0, 5.0]))
        tensor(5.)
    """

    name: ClassVar[str] = "rank_grad_norm"
    feed: ClassVar[Feed] = "rank"
    moments: ClassVar[tuple[Moment, ...]] = (Norm(),)

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """The norm.

        Args:
            count: How many entries there are.
            *moments: The norm of the gradient.
        """
        return moments[0]
