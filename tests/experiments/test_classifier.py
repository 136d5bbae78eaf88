"""Classifier: the parts it is given are the parts it has."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments import Classifier, lecun_normal_
from gradlab import layers, optim

ReLUNet: Callable[..., Classifier] = partial(
    Classifier,
    in_features=64,
    out_features=10,
    activation=layers.ReLU,
    init=nn.init.kaiming_normal_,
    optimizer=partial(optim.SGD, lr=0.1),
)


@pytest.mark.parametrize("depth", [1, 2, 8, 12])
def test_layers(depth: int) -> None:
    net = ReLUNet(depth=depth, width=16)
    linear = {n: m for n, m in net.layers.named_children() if "linear" in n}
    assert list(linear) == [f"linear{k}" for k in range(1, depth + 1)]
    assert all(type(m) is layers.Linear for m in linear.values())
    widths = [64, *[16] * (depth - 1), 10]
    shapes = [tuple(m.weight.shape) for m in linear.values()]
    assert shapes == [(widths[k + 1], widths[k]) for k in range(depth)]
    assert len(net.layers) == 2 * depth - 1
    assert net(torch.zeros(3, 8, 8)).shape == (3, 10)


def test_each_layer_has_its_own_activation() -> None:
    net = ReLUNet(activation=nn.PReLU)
    activations = [m for m in net.layers if isinstance(m, nn.PReLU)]
    assert len(set(map(id, activations))) == 7


@pytest.mark.parametrize(
    ("init", "gain"), [(lecun_normal_, 1.0), (nn.init.kaiming_normal_, 2.0)]
)
def test_initialisation(init: Callable[[Tensor], Tensor], gain: float) -> None:
    net = ReLUNet(init=init, width=256)
    for layer in net.layers:
        if isinstance(layer, layers.Linear):
            n = layer.weight.numel()
            variance = layer.weight.var().item() * layer.in_features
            assert abs(variance / gain - 1) < 5 * (2 / n) ** 0.5
            assert layer.bias.count_nonzero() == 0
            assert layer.weight.requires_grad


def test_the_optimizer_gets_every_parameter() -> None:
    net = ReLUNet(optimizer=partial(optim.Adam, lr=0.5))
    optimizer = net.configure_optimizers()
    assert isinstance(optimizer, optim.Adam)
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.5
    assert list(map(id, group["params"])) == list(map(id, net.parameters()))


@pytest.mark.parametrize("size", ["in_features", "out_features", "depth", "width"])
def test_a_size_below_one(size: str) -> None:
    with pytest.raises(ValueError, match=f"{size} must be at least 1, got 0"):
        ReLUNet(**{size: 0})


def test_an_option_that_the_optimizer_refuses_shows_at_once() -> None:
    wrong: dict[str, Any] = {"optimizer": partial(optim.SGD, lr=-1.0)}
    with pytest.raises(ValueError, match="lr"):
        ReLUNet(**wrong)
