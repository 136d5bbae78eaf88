"""Digits: the split is a split, and the seed alone fixes the order of the batches."""

from itertools import pairwise

import pytest
import torch
from sklearn.datasets import load_digits

from experiments import Digits


def images_of(data: Digits) -> torch.Tensor:
    return torch.cat([images for images, _ in data.train_dataloader()])


def test_every_image_is_in_one_split() -> None:
    (images, labels), (val_images, val_labels) = Digits().load()
    stored, _ = load_digits(return_X_y=True)
    together = torch.cat([images, val_images]).flatten(1)
    expected = torch.as_tensor(stored, dtype=torch.float32)
    assert sorted(together.tolist()) == sorted(expected.tolist())
    assert (len(labels), len(val_labels)) == (1438, 359)


def test_images_keep_their_labels() -> None:
    data = Digits()
    stored, digits = load_digits(return_X_y=True)
    label_of = {tuple(x): y for x, y in zip(stored.tolist(), digits, strict=True)}
    (images, labels), _ = data.load()
    for image, label in zip(images.flatten(1).tolist(), labels.tolist(), strict=True):
        assert label_of[tuple(image)] == label


def test_inputs_are_standardised_by_the_training_images() -> None:
    data = Digits(batch_size=1438)
    images, _ = next(iter(data.train_dataloader()))
    std, mean = torch.std_mean(images)
    torch.testing.assert_close((mean, std), (torch.tensor(0.0), torch.tensor(1.0)))


def test_batches_are_of_one_size_and_differ_between_epochs() -> None:
    loader = Digits(batch_size=100).train_dataloader()
    epochs = [[images for images, _ in loader] for _ in range(2)]
    assert [len(images) for images in epochs[0]] == [100] * 14
    assert all(not torch.equal(a, b) for a, b in zip(*epochs, strict=True))


def test_the_seed_fixes_the_order_whatever_else_draws_random_numbers() -> None:
    first = images_of(Digits(seed=1))
    torch.rand(7)
    assert torch.equal(images_of(Digits(seed=1)), first)
    assert not torch.equal(images_of(Digits(seed=2)), first)


def test_validation_is_whole_and_in_order() -> None:
    data = Digits()
    _, (_, labels) = data.load()
    assert torch.equal(torch.cat([y for _, y in data.val_dataloader()]), labels)
    counts = torch.bincount(labels, minlength=10).tolist()
    assert all(a > 20 for a, _ in pairwise([*counts, 0]))


def test_sizes() -> None:
    (images, labels), _ = Digits().load()
    assert images[0].numel() == Digits.in_features
    assert labels.unique().numel() == Digits.out_features


@pytest.mark.parametrize(("batch_size", "bound"), [(0, "at least 1"), (1439, "1438")])
def test_an_impossible_batch_size(batch_size: int, bound: str) -> None:
    with pytest.raises(
        ValueError, match=f"batch_size must be .*{bound}.* {batch_size}"
    ):
        Digits(batch_size).setup()
