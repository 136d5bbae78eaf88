"""The sample of an output: every unit and position has its share of it."""

import math

import pytest
import torch
from torch import Tensor

from gradlab.monitor._activation_sample import ENTRIES, has_all_units, sampled


def test_a_small_tensor_is_copied_whole() -> None:
    x = torch.randn(90, 91)
    kept = sampled(x)
    assert torch.equal(kept, x)
    assert kept.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("shape", [(8, 5000), (4, 64, 200), (32, 16, 16, 16), (9001,)])
def test_every_position_and_unit_has_its_share(shape: tuple[int, ...]) -> None:
    for axis, n in enumerate(shape):
        index = torch.arange(n).view(-1, *[1] * (len(shape) - axis - 1))
        share = sampled(index.expand(shape).contiguous()).bincount(minlength=n)
        even = share.sum() / n
        assert 0.5 * even - 1 <= share.min()
        assert share.max() <= 1.5 * even + 1


def test_one_in_128_of_what_is_larger() -> None:
    n = 1 << 20
    assert ENTRIES < n / 200 < len(sampled(torch.zeros(n))) < n / 124


@pytest.mark.parametrize("n", [4097, 6300, 60060, 51200, 510510, 8 * 4099])
def test_about_4096_entries(n: int) -> None:
    assert 3500 <= len(sampled(torch.zeros(n))) <= 2 * ENTRIES


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(8, 16, 10, 10).to(memory_format=torch.channels_last),
        torch.randn(190, 170).T,
        torch.randn(100, 200)[:, 50:150],
    ],
)
def test_any_layout(x: Tensor) -> None:
    kept = sampled(x)
    assert kept.is_contiguous()
    assert bool(torch.isin(kept, x).all())
    rms = kept.square().mean().sqrt() / x.square().mean().sqrt()
    assert rms.item() == pytest.approx(1.0, abs=0.06)


def test_an_expanded_gradient() -> None:
    assert sampled(torch.tensor(3.0).expand(100, 100)).unique().tolist() == [3.0]


def test_the_error_is_the_one_that_is_said() -> None:
    torch.manual_seed(0)
    kept = [sampled(torch.randn(64, 400)) for _ in range(40)]
    errors = torch.stack([x.square().mean().sqrt() - 1 for x in kept])
    expected = math.sqrt(2 / len(kept[0])) / 2
    assert errors.square().mean().sqrt().item() == pytest.approx(expected, rel=0.35)


def test_one_position_in_a_thousand_is_met() -> None:
    x = torch.zeros(8, 1024, 64)
    x[:, -1] = torch.randn(8, 64)
    found = sampled(x).square().mean().sqrt() / x.square().mean().sqrt()
    assert 0.4 < found < 1.6


@pytest.mark.parametrize(
    ("shape", "axis", "all_units"),
    [
        ((64, 64), 1, True),
        ((256, 200), 1, True),
        ((20, 5000), 1, False),
        ((32, 64, 8, 8), 1, True),
        ((200, 64, 2), 1, True),
        ((1, 9001), 1, False),
    ],
)
def test_whether_all_units_are_in_it(
    shape: tuple[int, ...], axis: int, all_units: bool
) -> None:
    x = torch.zeros(shape)
    assert has_all_units(x, axis) == all_units
    index = torch.arange(shape[axis]).view(-1, *[1] * (len(shape) - axis - 1))
    found = sampled(index.expand(shape).contiguous()).unique()
    assert (len(found) == shape[axis]) == all_units
