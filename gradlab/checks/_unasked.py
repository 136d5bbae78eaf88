"""Gradients that nobody asked for: which ones a backward computes, and from what."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.subject import BackwardCall, graph_nodes

CONTRACTIONS = (
    "Mm",
    "Bmm",
    "Addmm",
    "Baddbmm",
    "Addbmm",
    "Linear",
    "Conv",
    "Mv",
)
"""How the nodes of products of matrices are called: the work that is worth saving."""


def unasked(run: BackwardCall) -> list[int]:
    """Which arguments of a Function get a gradient that costs something for nothing.

    Args:
        run: The run of its backward.
    """
    return [
        i
        for i, (g, meta) in enumerate(zip(run.returned, run.metadata, strict=False))
        if isinstance(g, Tensor)
        and meta is not None
        and meta[1].is_floating_point | meta[1].is_complex
        and not run.needs_input_grad[i]
        and not _free(g, run, i)
    ]


def own_ops(run: BackwardCall, index: int) -> list[str] | None:
    """The ops behind an unasked gradient alone; None for a step to an asked one.

    Args:
        run: The run, with a graph where the backward can be differentiated.
        index: The argument of forward.
    """
    wasted = run.returned[index]
    others = [
        g
        for i, g in enumerate(run.returned)
        if isinstance(g, Tensor) and run.needs_input_grad[i]
    ]
    if any(_sums_to(wasted, g) for g in others):
        return None
    shared = set(graph_nodes(others)) | set(
        graph_nodes([t for t in run.grad_outputs if t is not None])
    )
    if wasted.grad_fn is None:
        return []
    if wasted.grad_fn in shared:
        return None
    return [node.name() for node in graph_nodes([wasted]) if node not in shared]


def _sums_to(wasted: Tensor, g: Tensor) -> bool:
    """Whether an asked gradient is the unasked one, summed over what was broadcast."""
    if g.ndim > wasted.ndim or wasted.shape == g.shape:
        return False
    try:
        return torch.allclose(wasted.sum_to_size(g.shape), g)
    except RuntimeError:
        return False


def _free(g: Tensor, run: BackwardCall, index: int) -> bool:
    others = [t for t in run.grad_outputs if t is not None]
    others += [
        t
        for i, t in enumerate(run.returned)
        if isinstance(t, Tensor) and i != index and run.needs_input_grad[i]
    ]
    address = g.untyped_storage().data_ptr()
    return (
        not g.numel()
        or any(address == t.untyped_storage().data_ptr() for t in others)
        or any(n > 1 and s == 0 for n, s in zip(g.shape, g.stride(), strict=True))
        or not bool((g != 0).any())
    )
