"""The graph behind the outputs of a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor


def nodes_behind(ends: Sequence[Tensor]) -> list[Any]:
    """The nodes of the graph, those of the tensors themselves first.

    Args:
        ends: Where the backward begins.
    """
    nodes = dict.fromkeys(end.grad_fn for end in ends if end.grad_fn is not None)
    waiting: list[Any] = list(nodes)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None and node not in nodes:
                nodes[node] = None
                waiting.append(node)
    return list(nodes)


def ends_first(
    ends: Sequence[Tensor], grads: dict[int, Tensor]
) -> tuple[list[int], list[int]]:
    """Outputs that got a gradient: those that no other one is made from, and the rest.

    The gradient of logits from which the model makes the loss that it returns too has
    in it what the loss sent back: to begin at both would count that twice.

    Args:
        ends: The outputs.
        grads: Their gradients, by place.
    """
    there = [
        i
        for i in grads
        if i < len(ends) and ends[i].requires_grad and ends[i].shape == grads[i].shape
    ]
    inner: set[int] = set()
    if len(there) > 1:
        for i in there:
            behind: Collection[Any] = set(nodes_behind([ends[i]])[1:])
            inner.update(j for j in there if j != i and ends[j].grad_fn in behind)
    return [i for i in there if i not in inner], sorted(inner, reverse=True)
