"""The same numbers in other places: the layouts that a Function may be handed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

TRANSPOSED = "transposed in memory"


def layouts(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor in layouts other than its contiguous one, values unchanged.

    Args:
        x: The tensor.

    Yields:
        What the layout is, and the tensor in it.
    """
    if not x.numel():
        return
    if sum(n > 1 for n in x.shape) > 1:
        dims = tuple(reversed(range(x.ndim)))
        yield (
            TRANSPOSED,
            x.permute(dims).clone(memory_format=torch.contiguous_format).permute(dims),
        )
    # Gaps between the entries and between the rows: no view as one row exists.
    wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1] + 1 if x.ndim else 3), 7.0)
    strided = wide[..., 1::2] if x.ndim else wide[1]
    yield "every second element of a larger buffer", strided.copy_(x)
    for ndim, memory_format in (
        (4, torch.channels_last),
        (5, torch.channels_last_3d),
    ):
        if x.ndim == ndim and x.shape[1] > 1 and x[0, 0].numel() > 1:
            yield "channels last", x.clone(memory_format=memory_format)


def expanded(x: Tensor, dims: int) -> Tensor | None:
    """A tensor repeated along its first dims with stride 0.

    Args:
        x: Where the values come from.
        dims: How many of them; all is what `.sum()` sends back, one is `.sum(0)`.

    Returns:
        The tensor; None where nothing would be repeated.
    """
    if not x.numel() or all(n == 1 for n in x.shape[:dims]):
        return None
    # Over memory for all of it: a kernel that ignores strides must not run out of it.
    whole = x.clone(memory_format=torch.contiguous_format)
    return whole[(slice(0, 1),) * dims].expand(x.shape)


def in_layouts_of(
    values: Sequence[Tensor], like: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Copies of tensors in the layouts of others.

    Args:
        values: The tensors, contiguous.
        like: One of the same shape for each, as `layouts` and `expanded` make them.
    """
    return tuple(_in_layout_of(a, b) for a, b in zip(values, like, strict=True))


def _in_layout_of(x: Tensor, like: Tensor) -> Tensor:
    strides, offset = like.stride(), like.storage_offset()
    once = [slice(0, 1) if s == 0 else slice(None) for s in strides]
    reach = sum((n - 1) * s for n, s in zip(x.shape, strides, strict=True))
    memory = x.new_full((offset + max(reach + 1, x.numel()),), 7.0)
    distinct = x[tuple(once)]
    memory.as_strided(distinct.shape, strides, offset).copy_(distinct)
    return memory.as_strided(x.shape, strides, offset)
