"""Writes IDX files: a Fashion-MNIST small enough for a test."""

import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx_bytes(array: Tensor) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + bytes(array.to(torch.uint8).flatten().tolist())


def write_fashion_mnist(root: Path, n_train: int = 256, n_val: int = 32) -> Path:
    """Fills `root` with four files of random images; the validation ones gzipped."""
    root.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for split, n in (("train", n_train), ("val", n_val)):
        images = torch.randint(0, 256, (n, 28, 28), generator=generator)
        for name, array in zip(
            NAMES[split], (images, torch.arange(n) % 10), strict=True
        ):
            content = idx_bytes(array)
            if split == "val":
                (root / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (root / name).write_bytes(content)
    return root
