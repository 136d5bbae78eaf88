"""The 8×8 handwritten digits that come inside scikit-learn (Alpaydin, Kaynak, 1998)."""

from __future__ import annotations

import torch

from ._image_classification import Batch, ImageClassification


class Digits(ImageClassification):
    """1797 images of 8×8 pixels in ten classes; needs no file and no network.

    A fifth of them, drawn by `seed`, validates.

    Args:
        batch_size: images in a training batch.
        seed: fixes the split and the order of the batches.

    Example:
        >>> images, labels = next(iter(Digits(batch_size=32).train_dataloader()))
        >>> images.shape, labels.dtype
        (torch.Size([32, 8, 8]), torch.int64)
    """

    in_features = 64
    out_features = 10

    def load(self) -> tuple[Batch, Batch]:
        """Splits the images into four fifths and one fifth."""
        from sklearn.datasets import load_digits  # a second to import: only when used

        pixels, digits = load_digits(return_X_y=True)
        images = torch.as_tensor(pixels, dtype=torch.float32).view(-1, 8, 8)
        labels = torch.as_tensor(digits, dtype=torch.int64)
        generator = torch.Generator().manual_seed(self.seed)
        val, train = torch.randperm(len(labels), generator=generator).tensor_split(
            [len(labels) // 5]
        )
        return (images[train], labels[train]), (images[val], labels[val])
