"""Fashion-MNIST is read from four files, or the user learns what is wrong with them."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch

from experiments import FashionMNIST
from experiments._fashion_mnist import DEBIAN_ROOT
from tests.experiments.fashion_mnist_files import NAMES, idx_bytes, write_fashion_mnist


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_fashion_mnist(tmp_path / "fashion-mnist", n_train=64, n_val=20)


def test_reads_plain_and_gzipped_files(root: Path) -> None:
    (images, labels), (val_images, val_labels) = FashionMNIST(root).load()
    assert images.shape == (64, 28, 28)
    assert val_images.shape == (20, 28, 28)
    assert images.max() == 255
    assert labels.tolist()[:12] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert val_labels.dtype == torch.int64
    batch, _ = next(iter(FashionMNIST(root, batch_size=16).train_dataloader()))
    assert batch.shape == (16, 28, 28)
    assert batch[0].numel() == FashionMNIST.in_features


def test_no_root_is_debians() -> None:
    assert FashionMNIST().root == DEBIAN_ROOT


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_absent_files_are_named_with_both_ways_to_get_them(
    root: Path, kept: int
) -> None:
    names = [name for pair in NAMES.values() for name in pair]
    for name in names[kept:]:
        for path in root.glob(f"{name}*"):
            path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        FashionMNIST(root).prepare_data()
    message = str(error.value)
    assert str(root) in message
    assert f"{4 - kept} of them are not there: {', '.join(names[kept:])}." in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "--data.root=DIR" in message


def test_an_absent_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="4 of them are not there"):
        FashionMNIST(tmp_path / "absent").setup()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3-ubyte", torch.zeros(64, 32, 32), r"images, \(n, 28, 28\)"),
        ("train-images-idx3-ubyte", torch.zeros(0, 28, 28), r"got \(0, 28, 28\)"),
        ("train-images-idx3-ubyte", torch.zeros(64), r"got \(64,\)"),
        ("train-labels-idx1-ubyte", torch.zeros(63), r"64 images .* shape \(63,\)"),
        ("train-labels-idx1-ubyte", torch.zeros(0), r"the greatest label of none"),
        ("train-labels-idx1-ubyte", torch.full((64,), 10), r"the greatest label 10"),
    ],
)
def test_files_of_another_data_set(
    root: Path, name: str, array: torch.Tensor, message: str
) -> None:
    (root / name).write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=message):
        FashionMNIST(root).setup()


def test_files_swapped(root: Path) -> None:
    images, labels = (root / name for name in NAMES["train"])
    shutil.copy(labels, images)
    with pytest.raises(ValueError, match="must hold images"):
        FashionMNIST(root).setup()


def test_a_truncated_download(root: Path) -> None:
    path = root / f"{NAMES['val'][0]}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"whole gzip file.*Copy it from its source"):
        FashionMNIST(root).setup()


def test_a_gzipped_file_without_its_suffix(root: Path) -> None:
    path = root / NAMES["train"][0]
    path.write_bytes(gzip.compress(path.read_bytes(), 1))
    assert len(FashionMNIST(root).load()[0][0]) == 64
