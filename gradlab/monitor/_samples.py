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

        Of a sparse tensor what is not stored is 0. They are multiplied by
        √(entries / sampled), so that norms and inner products of them estimate those of
        the whole tensors.

        Args:
            tensors: Dense or sparse; of a shard this rank's part is sampled.

        Returns:
            The samples, and how the tensors they are of are cut.
        """
        parts = [local(t, t)[1:] for t in tensors]
        return [self._sample(part) for part, _ in parts], [cut for _, cut in parts]

    def _sample(self, tensor: Tensor) -> Tensor:
        n, tensor = tensor.numel(), tensor.detach()
        dense = tensor.layout is torch.strided
        if n <= self._entries:
            return tensor.reshape(-1).clone() if dense else tensor.to_dense().flatten()
        key = n, tensor.device
        if key not in self._places:
            # Of its own, so that watching draws no random number of the run's.
            generator = torch.Generator().manual_seed(n)
            places = torch.randint(n, (self._entries,), generator=generator)
            self._places[key] = places.sort().values.to(tensor.device)
        places = self._places[key]
        found = tensor.reshape(-1)[places] if dense else _entries_at(tensor, places)
        return found * math.sqrt(n / self._entries)


def _entries_at(tensor: Tensor, places: Tensor) -> Tensor:
    """Entries of a sparse tensor, 0 where nothing is stored.

    Args:
        tensor: Blocks of entries at some of its leading indices.
        places: Flat places in the whole tensor, `[places]`.
    """
    coo = tensor if tensor.layout is torch.sparse_coo else tensor.to_sparse()
    coo = coo.coalesce()
    leading = tensor.shape[: coo.sparse_dim()]
    block = math.prod(tensor.shape[len(leading) :])
    # Coalesced: in ascending order.
    known = torch.zeros_like(coo.indices()[0])
    for index, size in zip(coo.indices(), leading, strict=True):
        known = known * size + index
    if not len(known):
        return coo.values().new_zeros(len(places))
    wanted = places // block
    at = torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)
    values = coo.values().reshape(len(known), block)[at, places % block]
    return values.masked_fill(known[at] != wanted, 0)
