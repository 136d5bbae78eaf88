"""Counts of exponents, against counting."""

import math

import pytest
import torch

from gradlab import Monitor, exponent_histogram
from gradlab.quantities import (
    Exponents,
    GradBelow,
    GradZeros,
    MagnitudeCount,
    SuggestedLossScale,
    ZeroCount,
)

CASES = [0.0, -0.0, 1e-45, 2.0**-126, -(2.0**-14), 2.0**-15, 1.0, 1.5, -3e38]


def test_each_entry_is_in_its_octave() -> None:
    grad = torch.tensor([*CASES, math.inf, math.nan])
    (counts,) = Exponents()([grad], [grad])
    found = {i: int(n) for i, n in enumerate(counts.tolist()) if n}
    assert found == {0: 2, 1: 1, 2: 1, 113: 1, 114: 1, 128: 2, 255: 1, 256: 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_magnitudes_are_counted_between_bounds(dtype: torch.dtype) -> None:
    grad = torch.tensor(CASES, dtype=torch.float32).to(dtype)

    def count(low: float = 0.0, high: float = math.inf) -> float:
        return MagnitudeCount(low, high)([grad], [grad]).item()

    assert count() == 7
    assert count(high=2.0**-14) == 3
    assert count(low=2.0**-14) == 4
    assert count(1.0, 2.0) == 2
    assert ZeroCount()([grad], [grad]).item() == 2


def test_float64_beyond_float32_is_not_lost() -> None:
    grad = torch.tensor([1e-300, 1e300, 0.0], dtype=torch.float64)
    assert MagnitudeCount()([grad], [grad]).item() == 2
    assert MagnitudeCount(high=1.0)([grad], [grad]).item() == 1
    assert ZeroCount()([grad], [grad]).item() == 1


def test_a_large_gradient_is_sampled() -> None:
    grad = torch.randn(300, 500) * 2.0**-14
    grad[torch.rand(300, 500) < 0.3] = 0.0
    small = torch.ones(3)
    exact = ((grad != 0) & (grad.abs() < 2.0**-14)).sum().item()
    below = MagnitudeCount(high=2.0**-14)([grad, small], [grad, small])
    assert below[0].item() == pytest.approx(exact, rel=0.1)
    assert below[1].item() == 0
    zeros = ZeroCount()([grad], [grad]).item()
    assert zeros == pytest.approx((grad == 0).sum().item(), rel=0.1)


def test_a_loss_scale_moves_the_bounds() -> None:
    model = torch.nn.Linear(4, 1, bias=False)
    grad = torch.tensor([[2.0**-16, 2.0**-13, 1.0, 0.0]])
    for scale in (1.0, 1024.0, torch.tensor(1024.0)):
        model.weight.grad = grad * scale
        monitor = Monitor(model, quantities=[GradBelow(), SuggestedLossScale()])
        found = monitor.observe(0, "unscaled", scale)
        assert found["grad_below_float16", "total"] == pytest.approx(1 / 3)
        assert found["suggested_loss_scale", "total"] == 2048.0


def test_the_suggested_scale_fits() -> None:
    for largest in (3e-5, 1.0, 4094.0, 1e6):
        scale = SuggestedLossScale()(torch.tensor(1.0), torch.tensor(largest)).item()
        assert largest * scale <= 65504 / 16 < 2 * largest * scale
        assert math.log2(scale).is_integer()
    nothing = SuggestedLossScale()(torch.tensor(1.0), torch.tensor(0.0)).item()
    assert nothing == math.inf


def test_a_format_is_one() -> None:
    with pytest.raises(ValueError, match="got 'int8'"):
        GradBelow("int8")


def test_histogram_of_a_model() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[1].weight.grad = torch.tensor([[0.5, 2.0**-140, 0.0]])
    model[1].bias.grad = torch.tensor([-0.75])
    found = exponent_histogram(model, scale=2.0)
    assert found.layers == ("1",)
    assert found.zeros.tolist() == [1.0]
    at = found.counts[0].nonzero().flatten()
    assert found.exponents[at].tolist() == [-127, -2]
    assert found.counts[0, at].tolist() == [1.0, 2.0]


def test_zeros_of_a_model() -> None:
    model = torch.nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[0.0, 1.0]])
    model.bias.grad = torch.tensor([0.0])
    found = Monitor(model, quantities=[GradZeros()]).observe(0, "raw")
    assert found["grad_zeros", "total"] == pytest.approx(2 / 3)
