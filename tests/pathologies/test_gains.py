"""Which factor is guilty of a gradient that vanishes, in real nets."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlab import Monitor
from gradlab.pathologies._gains import Shares, shares
from gradlab.quantities import ActivationGain, OutputGradRMS, WeightGain


def found(model: nn.Module) -> Shares:
    monitor = Monitor(
        model, quantities=[OutputGradRMS(), WeightGain(), ActivationGain()]
    )
    model(torch.randn(40, 16)).square().mean().backward()
    snapshot = monitor.observe_activations(0)
    assert snapshot is not None
    return shares(*snapshot.values.T.numpy())


def chain(activation: Callable[[], nn.Module], gain: float) -> nn.Sequential:
    torch.manual_seed(0)
    modules = [m for _ in range(12) for m in (nn.Linear(16, 16), activation())]
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight, gain)
    return nn.Sequential(*modules, nn.Linear(16, 2))


@pytest.mark.parametrize(
    ("activation", "gain", "guilty"),
    [
        (nn.Sigmoid, 1.0, "activations"),
        (nn.Tanh, 0.2, "weights"),
        (nn.LeakyReLU, 6.0, "weights"),
    ],
)
def test_who_is_guilty(
    activation: Callable[[], nn.Module], gain: float, guilty: str
) -> None:
    parts = found(chain(activation, gain))
    assert parts.others == pytest.approx(0.0, abs=1e-4)
    assert parts.guilty == guilty


def test_functions_that_are_no_modules_are_among_the_others() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([*chain(nn.Sigmoid, 1.0)][::2])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.sigmoid(layer(x))
            return x

    assert found(Functional()).guilty == "others"


def test_nobody_is_guilty_of_nothing() -> None:
    assert Shares(-3.0, 3.0, 0.1).guilty is None
    assert Shares(0.0, 0.0, 0.0).guilty is None
    nan = np.array([np.nan, np.nan])
    assert shares(np.array([0.0, 1.0]), nan, nan).total == -np.inf
