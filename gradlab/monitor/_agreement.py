"""Ranks that hold shards must read the same steps: they agree, or nobody reads.

Reading shards is a collective. A rank that reads alone would wait for the others, or
mix up its numbers with what they send next.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch


def must_agree(mesh: Any, *options: object) -> None:
    """Make sure that every rank reads the same, at the same steps.

    Args:
        mesh: The device mesh.
        *options: What must be the same on every rank.

    Raises:
        RuntimeError: If it is not, on all of them.
    """
    number = zlib.crc32(repr(options).encode())
    low, high = (_extreme([sign * number], mesh) for sign in (-1, 1))
    if -low[0] != high[0]:
        raise RuntimeError(
            "of sharded gradients every rank reads the same quantities at the same "
            f"steps, got other options on other ranks than here: {options}; make the "
            "monitor alike on all of them"
        )


def longest(wait: int, mesh: Any) -> int:
    """The longest of what the ranks would wait.

    Args:
        wait: Steps until this rank would read again.
        mesh: The device mesh.
    """
    return _extreme([wait], mesh)[0]


def one_of_many() -> bool:
    """Whether this is one of several ranks."""
    dist = torch.distributed
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Which one of the ranks this is; 0 if it is alone."""
    return torch.distributed.get_rank() if one_of_many() else 0


def _extreme(numbers: Sequence[int], mesh: Any) -> list[int]:
    import torch.distributed as dist

    tensor = torch.tensor(numbers, device=mesh.device_type)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()
