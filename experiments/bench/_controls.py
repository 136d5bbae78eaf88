"""Healthy ways to train, of which nothing may be said."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ._net import Net
from ._trace import Change


def _warm_up(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 20)


def _cosine(step: int, steps: int) -> float:
    return (1 + math.cos(math.pi * step / steps)) / 2


def _one_class_in_ten(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Nine tenths of the batch are of its commonest class."""
    if y.is_floating_point():
        return x, y
    of_one = torch.nonzero(y == y.mode().values)[:, 0]
    rest = torch.arange(max(1, len(y) // 10))
    many = of_one[torch.arange(len(y) - len(rest)) % len(of_one)]
    chosen = torch.cat([rest, many])
    return x[chosen], y[chosen]


def _smaller_inputs(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (0.3 * x, y) if x.is_floating_point() else (x, y)


def _frozen_start(model: nn.Module) -> None:
    """The first layer is frozen before training, as a backbone is."""
    first = next(m for m in model.modules() if m._parameters)
    first.requires_grad_(False)


def _small_loss(step: int, loss: Tensor, output: Tensor) -> Tensor:
    return loss * 1e-3


def _decay(model: nn.Module) -> None:
    """Weight decay, added to the gradient."""
    for p in model.parameters():
        if p.grad is not None:
            p.grad.add_(p.detach(), alpha=1e-3)


CONTROLS: tuple[Change, ...] = (
    Change("plain"),
    Change("small_batch", batch=4),
    Change("large_batch", batch=128),
    Change("warm_up", schedule=_warm_up),
    Change("cosine_decay", schedule=_cosine),
    Change("half_learning_rate", learning_rate=0.5),
    Change("tenth_learning_rate", learning_rate=0.1),
    Change("accumulation", batch=8, microbatches=4),
    Change("clipped_now_and_then", clip=1.0),
    Change("clipped_often", clip=0.3),
    Change("weight_decay", grads=_decay),
    Change("one_class_in_ten", data=_one_class_in_ten),
    Change("smaller_inputs", data=_smaller_inputs),
    Change("frozen_first_layer", plant=_frozen_start),
    Change("small_loss", loss=_small_loss),
    Change("one_batch_forever", repeats=True),
    Change("bfloat16_autocast", bfloat16=True),
)
"""Healthy ways to train; the first one is what faults are planted into."""


def control(net: Net, index: int) -> Change:
    """A way to train this network, another one for each index.

    Args:
        net: The network.
        index: Which; they come round again.
    """
    # Not every network begins with the same ones.
    shift = sum(map(ord, net.name))
    change = CONTROLS[(index + shift) % len(CONTROLS)]
    if change.name == "small_loss" and not net.adapts:
        # In other units of the loss, SGD needs the step in other units too.
        return Change("small_loss", loss=_small_loss, learning_rate=1e3)
    return change
