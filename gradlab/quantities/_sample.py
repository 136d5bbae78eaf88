"""A sample of the entries of tensors: short runs of neighbours, spread over all rows.

What is asked of all entries of a gradient costs a pass over it; a few thousand of them
tell a ratio, a cosine or a share to some per cent. Runs of neighbours are read with few
cache misses, and one copy brings those of all tensors together. The places follow from
the shape alone: no random number is drawn, and a parameter and its gradient are sampled
at the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

WHOLE, RUN, RUNS, ROW = 4096, 16, 128, 256
"""Entries of a tensor that is taken whole, at most; entries of a run, a line of the
cache; runs of a larger tensor, at least; entries of a row of the sample."""

_GOLDEN = (math.sqrt(5) - 1) / 2


class Place(NamedTuple):
    """Where the entries of one tensor are taken.

    Attributes:
        shape: The shape of the tensor, real and imaginary parts side by side.
        strides: How it must be laid out, so that places mean the same.
        size: `[runs, RUN]`; `[n]` for a tensor that is taken whole.
        step: The strides of what is taken.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    size: tuple[int, ...]
    step: tuple[int, ...]


class Parts(NamedTuple):
    """What is sampled of the tensors of a layout, in its order.

    Attributes:
        runs: `[runs, RUN]` of tensors of which a part is taken.
        wholes: `[n]` of the others, and zeros to fill up rows.
        zeros: `[ROW]` zeros, of the dtype of the sample.
        stays: Whether all of it is memory of the tensors: what is written to them shows
            here.
    """

    runs: list[Tensor]
    wholes: list[Tensor]
    zeros: Tensor
    stays: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """How the samples of n tensors fill the rows of one.

    Attributes:
        places: Where each tensor is sampled.
        order: The tensors as their rows follow each other: first those of runs.
        owners: int64 `[rows]`: whose each row is.
        weights: float64 `[n]`: entries of each tensor over those taken, at least 1.
        padding: int64 `[n]`: zeros that fill up the last row of each.
    """

    places: tuple[Place, ...]
    order: tuple[int, ...] = field(init=False)
    owners: Tensor = field(init=False)
    weights: Tensor = field(init=False)
    padding: Tensor = field(init=False)
    _known: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        put = object.__setattr__
        order = sorted(range(len(self.places)), key=lambda i: -len(self.places[i].size))
        taken = [math.prod(place.size) for place in self.places]
        whole = [math.prod(place.shape) for place in self.places]
        rows = [-(-n // ROW) for n in taken]
        put(self, "order", tuple(order))
        owners = torch.tensor(order, dtype=torch.long)
        put(self, "owners", owners.repeat_interleave(torch.tensor(rows)[owners]))
        weights = [n / max(k, 1) for n, k in zip(whole, taken, strict=True)]
        put(self, "weights", torch.tensor(weights, dtype=torch.float64).clamp(min=1))
        padding = [r * ROW - k for r, k in zip(rows, taken, strict=True)]
        put(self, "padding", torch.tensor(padding, dtype=torch.long))

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Owners, weights and padding on a device; brought there once.

        Args:
            device: The device.
        """
        if device not in self._known:
            weights = self.weights.float() if device.type == "mps" else self.weights
            self._known[device] = (
                self.owners.to(device),
                weights.to(device),
                self.padding.to(device),
            )
        return self._known[device]

    @torch.no_grad()
    def draw(self, tensors: Sequence[Tensor | None]) -> Float[Tensor, "rows 256"]:
        """The sampled entries, in rows that belong to one tensor each.

        Args:
            tensors: n tensors of one device, of the shapes of the layout; None is drawn
                as zeros. One of them is there at least. Of a sparse tensor what is not
                stored is 0.

        Returns:
            A new tensor, of the widest dtype among them, float32 at least; zeros fill
            up.
        """
        return self.copy(self.parts(tensors))

    @torch.no_grad()
    def parts(self, tensors: Sequence[Tensor | None]) -> Parts:
        """What is sampled of each tensor, where it is.

        Args:
            tensors: As for `draw`.
        """
        there = [t for t in tensors if t is not None]
        # Half precision is exact in float32.
        dtype = reduce(torch.promote_types, {t.dtype for t in there}, torch.float32)
        zeros = torch.zeros(ROW, dtype=dtype.to_real(), device=there[0].device)
        runs: list[Tensor] = []
        wholes: list[Tensor] = []
        stays = True
        for i in self.order:
            place, tensor = self.places[i], tensors[i]
            if tensor is None:
                part, stays = zeros[:1].expand(place.size), False
            elif tensor.layout is not torch.strided:
                part, stays = _stored_at(tensor, place), False
            else:
                laid = _laid_out(tensor, place)
                stays = stays and laid is tensor
                part = laid
                if part.ndim != 1 or len(place.size) == 2:
                    part = part.as_strided(place.size, place.step)
            if len(place.size) == 2:
                runs.append(part)
                continue
            wholes.append(part)
            if fill := -place.size[0] % ROW:
                wholes.append(zeros[:fill])
        return Parts(runs, wholes, zeros, stays)

    @torch.no_grad()
    def copy(self, parts: Parts) -> Float[Tensor, "rows 256"]:
        """The sampled entries as they are now.

        Args:
            parts: What is sampled of each tensor.
        """
        rows = parts.zeros.new_empty(len(self.owners), ROW)
        cut = sum(part.shape[0] for part in parts.runs) * RUN
        if parts.runs:
            torch.cat(parts.runs, out=rows.view(-1)[:cut].view(-1, RUN))
        if parts.wholes:
            torch.cat(parts.wholes, out=rows.view(-1)[cut:])
        return rows


def layout(tensors: Sequence[Tensor]) -> Layout:
    """How to sample these tensors; the same for tensors of the same shapes.

    A tensor of up to 4096 entries is taken whole. A larger one is sampled in 128 runs
    of 16 neighbours, or in √n / 4 runs where these are more; one with many short rows,
    as an embedding, in four times as many. The step from run to run is near the golden
    section of a row, so that the runs meet all rows and columns alike.

    Args:
        tensors: Dense tensors.
    """
    return _layout(tuple((t.shape, t.stride(), t.is_complex()) for t in tensors))


Signature = tuple[tuple[tuple[int, ...], tuple[int, ...], bool], ...]


@lru_cache(maxsize=16)
def _layout(signature: Signature) -> Layout:
    return Layout(tuple(_place(*one) for one in signature))


def _place(shape: tuple[int, ...], strides: tuple[int, ...], parts: bool) -> Place:
    if parts:
        shape, strides = (*shape, 2), (*(2 * s for s in strides), 1)
    if not _dense(shape, strides):
        strides = torch.empty(shape, device="meta").stride()
    n = math.prod(shape)
    if n <= WHOLE:
        return Place(tuple(shape), tuple(strides), (n,), (1,))
    row = max(s for s, k in zip(strides, shape, strict=True) if k > 1)
    # Of a tall one, as an embedding is, few rows may carry all.
    runs = max(RUNS, math.isqrt(n) // 4) * (4 if n > 8 * row * row else 1)
    # Whole rows of the sample.
    runs = min(runs, n // RUN) * RUN // ROW * ROW // RUN
    return Place(tuple(shape), tuple(strides), (runs, RUN), (_step(n, row, runs), 1))


def _step(n: int, row: int, runs: int) -> int:
    """From one run to the next, so that they reach over most of the tensor."""
    longest = (n - RUN) // (runs - 1)
    # Multiples of a run: none begins in one line of the cache and ends in the next.
    unit = RUN if longest >= 8 * RUN else 1
    least = (longest - min(longest // 16, row)) // unit * unit
    steps = range(max(least, 1), longest + 1, unit)

    def miss(step: int) -> float:
        way = step / row % 1
        return min(abs(way - _GOLDEN), abs(1 - way - _GOLDEN))

    return min(steps, key=miss)


def _dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether a tensor fills its memory without a gap or an overlap."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _laid_out(tensor: Tensor, place: Place) -> Tensor:
    """The tensor itself, or a copy laid out as the one it is compared with."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.stride() == place.strides:
        return tensor
    laid = torch.empty_strided(
        place.shape, place.strides, dtype=tensor.dtype, device=tensor.device
    )
    return laid.copy_(tensor)


def _stored_at(tensor: Tensor, place: Place) -> Tensor:
    """Entries of a sparse tensor, 0 where nothing is stored.

    Args:
        tensor: Blocks of entries at some of its leading indices.
        place: Where to take them; of a contiguous tensor.
    """
    if len(place.size) == 1:
        return tensor.to_dense().flatten()
    device = tensor.device
    starts = torch.arange(place.size[0], device=device)[:, None] * place.step[0]
    places = (starts + torch.arange(RUN, device=device)).view(-1)
    coo = tensor if tensor.layout is torch.sparse_coo else tensor.to_sparse()
    coo = coo.coalesce()
    leading = tensor.shape[: coo.sparse_dim()]
    block = math.prod(tensor.shape[len(leading) :])
    # Coalesced: in ascending order.
    known = torch.zeros_like(coo.indices()[0])
    for index, size in zip(coo.indices(), leading, strict=True):
        known = known * size + index
    if not len(known):
        return coo.values().new_zeros(place.size)
    wanted = places // block
    at = torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)
    values = coo.values().reshape(len(known), block)[at, places % block]
    return values.masked_fill(known[at] != wanted, 0).view(place.size)
