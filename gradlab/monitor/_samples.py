"""A fixed sample of the entries of each tensor: enough to compare it with itself later.

A full copy of all parameters doubles their memory; 4096 entries of each tell a ratio of
norms or a cosine to some per cent. The places are drawn once, so that two samples of a
tensor are of the same entries. Tensors of no more entries are copied whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..quantities import stored
from ._shards import Sharding, local

Cut = Sharding | None

ENTRIES = 4096


class Samples:
    """Draws the same entries of the same parameters every time.

    Args:
        entries: How many of each tensor, at most.
    """

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._places: dict[tuple[int, torch.device], Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Cut]]:
        """Copies of the sampled entries, one flat tensor each.

        They are multiplied by √(entries / sampled), so that norms and inner products
        of them estimate those of the whole tensors.

        Args:
            tensors: Dense or sparse; of a shard this rank's part is sampled.

        Returns:
            The samples, and how the tensors they are of are cut.
        """
        parts = [local(t, t)[1:] for t in tensors]
        return [self._sample(part) for part, _ in parts], [cut for _, cut in parts]

    def _sample(self, tensor: Tensor) -> Tensor:
        flat = stored(tensor).detach().reshape(-1)
        n = flat.numel()
        if n <= self._entries:
            return flat.clone()
        key = n, flat.device
        if key not in self._places:
            # Of its own, so that watching draws no random number of the run's.
            generator = torch.Generator().manual_seed(n)
            places = torch.randint(n, (self._entries,), generator=generator)
            self._places[key] = places.sort().values.to(flat.device)
        return flat[self._places[key]] * math.sqrt(n / self._entries)
