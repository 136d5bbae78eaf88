"""Fashion-MNIST, 28×28 photographs of clothing in ten classes (Xiao et al., 2017)."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ._idx import read_idx
from ._image_classification import Batch, ImageClassification

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

_FILES = {
    split: (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    for split, stem in (("train", "train"), ("val", "t10k"))
}


class FashionMNIST(ImageClassification):
    """60 000 training images of 28×28 pixels in ten classes, from four IDX files.

    The 10 000 test images validate: nothing here is tuned on them. Files of the same
    format and names, such as MNIST's, do as well.

    Args:
        root: the directory of the four files, each gzipped (`.gz`) or plain. None
            stands for where Debian's package puts them.
        batch_size: images in a training batch.
        seed: fixes the order of the batches.
    """

    in_features = 28 * 28
    out_features = 10

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.root = DEBIAN_ROOT if root is None else Path(root).expanduser()

    def prepare_data(self) -> None:
        """Raises FileNotFoundError, with both ways to get them, when files lack."""
        lacking = [
            name for names in _FILES.values() for name in names if not self._find(name)
        ]
        if lacking:
            raise FileNotFoundError(
                f"Fashion-MNIST must lie in {self.root} as four IDX files, each plain "
                f"or with .gz added; {len(lacking)} of them are not there: "
                f"{', '.join(lacking)}. Either install Debian's package (`apt-get "
                f"install dataset-fashion-mnist`, which fills {DEBIAN_ROOT}), or say "
                "where they are with --data.root=DIR."
            )

    def load(self) -> tuple[Batch, Batch]:
        """Reads the four files; see `read_idx` for what can be wrong with one."""
        self.prepare_data()
        return self._load("train"), self._load("val")

    def _find(self, name: str) -> Path | None:
        candidates = (self.root / name, self.root / f"{name}.gz")
        return next((path for path in candidates if path.is_file()), None)

    def _load(self, split: str) -> Batch:
        images_path, labels_path = (self._find(name) for name in _FILES[split])
        assert images_path is not None
        assert labels_path is not None
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.shape[1:] != (28, 28) or len(images) == 0:
            raise ValueError(
                f"{images_path} must hold images, (n, 28, 28); got "
                f"{tuple(images.shape)}. Is it another data set's file?"
            )
        if labels.shape != images.shape[:1] or int(labels.max()) >= self.out_features:
            raise ValueError(
                f"{labels_path} must hold one label in 0..9 for each of the "
                f"{len(images)} images of {images_path.name}; got shape "
                f"{tuple(labels.shape)} and the greatest label "
                f"{int(labels.max()) if labels.numel() else 'of none'}. Are both "
                "files from the same data set?"
            )
        return images.to(torch.float32), labels.to(torch.int64)
