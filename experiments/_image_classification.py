"""Labelled images held in memory, in batches whose order a seed fixes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor]
"""Images (n, height, width), float, and labels (n,), int64."""


class ImageClassification(LightningDataModule, ABC):
    """Standardised images and their labels, in batches of equal size.

    Two networks trained with the same seed see the same batches in the same order,
    however many random numbers their initialisation takes. A subclass states its sizes
    and says how to `load`.

    Args:
        batch_size: images in a training batch; what is left over at the end of an
            epoch waits for the next shuffle.
        seed: fixes the order of the batches, and the split where the data have none.
    """

    in_features: ClassVar[int]
    """Pixels of an image."""
    out_features: ClassVar[int]
    """Classes."""

    def __init__(self, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self.seed = seed
        self._splits: tuple[_InMemory, _InMemory] | None = None

    @abstractmethod
    def load(self) -> tuple[Batch, Batch]:
        """Returns all of the training and all of the validation data, as stored."""

    def setup(self, stage: str | None = None) -> None:
        """Loads the data once, and standardises them by the training images."""
        if self._splits is not None:
            return
        (images, labels), (val_images, val_labels) = self.load()
        if len(labels) < self.batch_size:
            raise ValueError(
                f"batch_size must be at most the number of training images, "
                f"{len(labels)}, got {self.batch_size}: set --data.batch_size."
            )
        std, mean = torch.std_mean(images)
        self._splits = (
            _InMemory((images - mean) / std, labels),
            _InMemory((val_images - mean) / std, val_labels),
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of `batch_size`; each epoch has another order."""
        return DataLoader(
            self._split(0),
            self.batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=_as_it_is,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation images in their order, in batches as large as is handy."""
        return DataLoader(self._split(1), 1024, collate_fn=_as_it_is)

    def _split(self, index: int) -> _InMemory:
        self.setup()
        assert self._splits is not None
        return self._splits[index]


class _InMemory(Dataset[Batch]):
    """Takes a whole batch at one indexing; one by one takes five times as long."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(indices)
        return self.images[chosen], self.labels[chosen]


def _as_it_is(batch: Any) -> Any:
    return batch
