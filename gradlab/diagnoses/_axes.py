"""Every way to permute, flip or reinterpret the axes of a tensor within its shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, permutations

from torch import Size, Tensor

Rearrangement = Callable[[Tensor], Tensor]


def permuted(shape: Size) -> Iterator[tuple[str, Rearrangement]]:
    """Permutations that keep the shape.

    Args:
        shape: Of the tensors to rearrange; at most four axes.

    Yields:
        A description and the rearrangement.
    """
    if not 2 <= len(shape) <= 4:
        return
    for order in _orders(len(shape)):
        if [shape[d] for d in order] == list(shape):
            yield f"has its axes in the order {order}", lambda t, o=order: t.permute(o)


def flipped(shape: Size) -> Iterator[tuple[str, Rearrangement]]:
    """Reversals of one or two axes.

    Args:
        shape: Of the tensors to rearrange.

    Yields:
        A description and the rearrangement.
    """
    long = [d for d, n in enumerate(shape) if n > 1]
    for count in (1, 2):
        for dims in combinations(long, count):
            which = " and ".join(map(str, dims))
            axis = "axis" if count == 1 else "axes"
            yield f"is flipped along {axis} {which}", lambda t, d=dims: t.flip(d)


def reinterpreted(shape: Size) -> Iterator[tuple[str, Rearrangement]]:
    """Memory read in another order of the axes, as a forgotten `transpose` does it.

    Args:
        shape: Of the tensors to rearrange; at most four axes.

    Yields:
        A description and the rearrangement.
    """
    if sum(n > 1 for n in shape) < 2 or len(shape) > 4:
        return
    for order in _orders(len(shape)):
        if [shape[d] for d in order] == list(shape):
            continue
        yield (
            f"is permuted to {order} and reshaped back",
            lambda t, o=order: t.permute(o).reshape(shape),
        )
        back = [order.index(d) for d in range(len(shape))]
        yield (
            f"is read as {[shape[d] for d in order]} and permuted back",
            lambda t, o=order, b=back: t.reshape([shape[d] for d in o]).permute(b),
        )


def _orders(ndim: int) -> Iterator[tuple[int, ...]]:
    """All orders but the natural one, those that exchange fewest axes first."""
    natural = tuple(range(ndim))
    orders = [order for order in permutations(natural) if order != natural]
    yield from sorted(
        orders, key=lambda o: sum(a != b for a, b in zip(o, natural, strict=True))
    )
