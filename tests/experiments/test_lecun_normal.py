"""N(0, 1/n): the variance is one over the fan-in, and unit inputs keep theirs."""

import pytest
import torch

from experiments import lecun_normal_


@pytest.mark.parametrize("fan_in", [1, 64, 784])
def test_variance(fan_in: int) -> None:
    weight = torch.empty(200_000 // fan_in, fan_in)
    assert lecun_normal_(weight) is weight
    n = weight.numel()
    # the sample variance of n normal numbers has relative deviation √(2/n)
    assert abs(weight.var().item() * fan_in - 1) < 5 * (2 / n) ** 0.5
    assert abs(weight.mean().item()) < 5 * (1 / fan_in / n) ** 0.5
