"""The gradient noise scale, tr Σ / |G|²: how many microbatches make a step worth it.

McCandlish et al. 2018, An Empirical Model of Large-Batch Training, appendix A.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ._moment import Moment
from ._moments import SquaredNorm
from ._quantity import Feed, Quantity


@dataclass(frozen=True)
class NoiseScale(Quantity):
    """The simple noise scale B = tr Σ / |G|², in microbatches of one rank.

    Below B microbatches a step, doubling their number nearly halves the steps that are
    needed; far above, it saves next to nothing. Times the samples of a microbatch it is
    the noise scale in samples. Two batch sizes tell it: of one microbatch, and of all
    those of a step, accumulated and averaged over ranks; a run with one microbatch a
    step and one rank has no numbers. The estimates of tr Σ and of |G|² are free of bias
    and very noisy: both are averaged over steps before one is divided by the other.

    Args:
        decay: How much of the averages a step keeps.

    Raises:
        ValueError: If that is not a share below 1.

    Example:
        >>> NoiseScale()(*torch.tensor([8.0, 6.0, 3.0]))
        tensor(2.)
    """

    decay: float = 0.98
    name: ClassVar[str] = "noise_scale"
    feed: ClassVar[Feed] = "microbatch"
    moments: ClassVar[tuple[Moment, ...]] = (SquaredNorm("value"), SquaredNorm())

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(
                f"the averages keep a share from 0 up to 1, got decay={self.decay!r}"
            )

    def __call__(self, count: Tensor, *moments: Tensor) -> Tensor:
        """Tr Σ / |G|²; infinite where no mean gradient shows above the noise.

        Args:
            count: How many entries there are.
            *moments: tr Σ of one microbatch, and |G|².
        """
        noise, signal = moments
        scale = noise.clamp(min=0) / signal
        return torch.where(signal > 0, scale, scale * 0 + torch.inf)
