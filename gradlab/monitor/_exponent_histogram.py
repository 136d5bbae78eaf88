"""Which octaves the entries of each layer's gradient are in."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ..quantities import MagnitudeCount, ZeroCount
from ._layers import Outline
from ._measure import measure
from ._reading import gradients

LOWEST, HIGHEST = -127, 127


class ExponentHistogram(NamedTuple):
    """How many entries of each layer's gradient have which exponent.

    Attributes:
        layers: Names of the layers that have a gradient, in the order of the model.
        exponents: int64; e stands for 2^e ≤ |g| < 2^(e + 1), and the first for all that
            is smaller still.
        counts: float64 `[layers, exponents]`, estimated where a tensor is sampled.
        zeros: float64 `[layers]`: how many entries are exactly zero.
    """

    layers: tuple[str, ...]
    exponents: Tensor
    counts: Float64[Tensor, "layers exponents"]
    zeros: Float64[Tensor, " layers"]


@torch.no_grad()
def exponent_histogram(
    model: nn.Module, scale: float | Tensor = 1.0
) -> ExponentHistogram:
    """The exponents of the gradients that a model has now, layer by layer.

    Gradients of up to 4096 entries are counted whole, larger ones sampled. Columns
    below -14 are what float16 has no normal number for, below -24 it has nothing; a
    loss scale of 2ᵏ moves the picture k columns up.

    Args:
        model: The model, after a backward.
        scale: What the loss was multiplied by; it is divided out.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> model(torch.tensor([[1.0, 6.0]])).sum().backward()
        >>> found = exponent_histogram(model)
        >>> found.layers, found.exponents[found.counts[0] > 0].tolist()
        (('root',), [0, 2])
    """
    layers = Outline(model).of(None)
    pairs = gradients(layers)
    there = [i for i, pair in enumerate(pairs) if pair is not None]
    exponents = torch.arange(LOWEST, HIGHEST + 1)
    bounds = [0.0, *(2.0**e for e in range(LOWEST + 1, HIGHEST + 1)), 2.0**128]
    octaves = [MagnitudeCount(*pair) for pair in pairwise(bounds)]
    found = [pair for pair in pairs if pair is not None]
    numbers = measure([*octaves, ZeroCount()], found, scale, layers.device)
    sizes = torch.tensor(layers.sizes)
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)[there]
    table = torch.zeros(len(sizes), len(numbers), dtype=torch.float64)
    table.index_add_(0, owner, numbers.T)
    kept = owner.unique().tolist()
    names = tuple(layers.layers[i].name for i in kept)
    return ExponentHistogram(names, exponents, table[kept, :-1], table[kept, -1])
