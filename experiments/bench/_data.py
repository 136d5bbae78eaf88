"""Batches to train small networks on: noisy prototypes, point clouds, real digits."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Generator, Tensor

WIDTH, CLASSES, BATCH, LENGTH, WORDS = 32, 5, 32, 16, 40

Data = Literal[
    "vector",
    "image",
    "sequence",
    "token",
    "cloud",
    "digits",
    "digit_rows",
    "digit_vector",
]
"""Shapes of an input: vector `[20]`, image `[1, 12, 12]`, sequence `[16, 32]`, token
`[16]`, cloud `[24, 2]`; digits `[1, 8, 8]`, digit_rows `[8, 8]`, digit_vector `[64]`.
"""


def batch(data: Data, maker: Generator, size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Inputs `[size, ...]` and their labels `[size]`.

    Args:
        data: Which.
        maker: The source of the batch; what the classes look like is always the same.
        size: How many.
    """
    if data.startswith("digit"):
        images, labels = _digits()
        chosen = torch.randint(len(labels), (size,), generator=maker)
        x = images[chosen]
        shapes = {"digits": x[:, None], "digit_rows": x, "digit_vector": x.flatten(1)}
        return shapes[data], labels[chosen]
    y = torch.randint(CLASSES, (size,), generator=maker)
    always = torch.Generator().manual_seed(1)
    if data == "token":
        words = torch.randint(WORDS, (CLASSES, LENGTH), generator=always)
        noise = torch.randint(WORDS, (size, LENGTH), generator=maker)
        kept = torch.rand(noise.shape, generator=maker) < 0.6
        return torch.where(kept, words[y], noise), y
    if data == "cloud":
        # A ring of its own width and height for each class, in any order of points.
        angle = 2 * torch.pi * torch.rand(size, 24, generator=maker)
        axes = 0.5 + torch.rand(CLASSES, 1, 2, generator=always)
        ring = torch.stack([angle.cos(), angle.sin()], -1) * axes[y]
        return ring + 0.05 * torch.randn(ring.shape, generator=maker), y
    shapes = {"vector": (20,), "image": (1, 12, 12), "sequence": (LENGTH, WIDTH)}
    prototypes = torch.randn(CLASSES, *shapes[data], generator=always)
    return prototypes[y] + torch.randn(size, *shapes[data], generator=maker), y


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """The 1797 digits of scikit-learn, standardised, `[1797, 8, 8]`, and labels."""
    from sklearn.datasets import load_digits  # a second to import: only when used

    pixels, labels = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.float32).view(-1, 8, 8)
    images = (images - images.mean()) / images.std()
    return images, torch.as_tensor(labels, dtype=torch.int64)
