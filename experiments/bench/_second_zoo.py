"""Networks of other kinds, on real digits where they can.

They were held out once: no threshold was chosen on them before their first run. That
run made `Vanishing` and `ClippingAlwaysOn` stricter, and them tuning networks.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ._data import CLASSES, WIDTH
from ._net import (
    Attention,
    MeanOverTime,
    Net,
    Recurrent,
    Residual,
    gentle_sgd,
    mlp,
    scaled,
    sgd,
)

DIGITS = 10


class Patches(nn.Module):
    """Patches of 2 × 2 pixels with their places: `[B, 1, 8, 8]` to `[B, 16, width]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.places = nn.Parameter(0.02 * torch.randn(16, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """One token a patch."""
        return self.embed(x).flatten(2).mT + self.places


class Transposed(nn.Module):
    """f over the other dimension: of `[B, tokens, width]` it mixes tokens."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """f(xᵀ)ᵀ."""
        return self.inner(x.mT).mT


class Dense(nn.Module):
    """y = [x, f(x)] over channels (Huang et al. 2017)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """What was there, and more."""
        return torch.cat([x, self.inner(x)], 1)


class UNet(nn.Module):
    """Down twice and up twice, each level beside its like (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()

        def level(a: int, b: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.ReLU())

        self.top, self.down, self.bottom = (
            level(1, 8),
            level(8, 12, 2),
            level(12, 16, 2),
        )
        self.up, self.out = level(28, 12), level(20, 8)
        self.grow = nn.Upsample(scale_factor=2)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From an image to an image."""
        top = self.top(x)
        down = self.down(top)
        up = self.up(torch.cat([down, self.grow(self.bottom(down))], 1))
        return self.head(self.out(torch.cat([top, self.grow(up)], 1)))


class TiedAutoencoder(nn.Module):
    """Tanh down to 12 numbers and up again through the same weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (64, 48, 32, 12)
        pairs = list(pairwise(sizes))
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.acts = nn.ModuleList(nn.Tanh() for _ in range(2 * len(pairs) - 1))
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(a)) for a, _ in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """The drawing."""
        acts = iter(self.acts)
        for layer in self.down:
            x = next(acts)(layer(x))
        for i in reversed(range(len(self.down))):
            x = x @ self.down[i].get_parameter("weight") + self.shifts[i]
            x = next(acts, nn.Identity())(x)
        return x


class Highway(nn.Module):
    """y = g(x) f(x) + (1 − g(x)) x (Srivastava et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.gate = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sigmoid())
        linear = self.gate[0]
        assert isinstance(linear, nn.Linear)
        nn.init.constant_(linear.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Between f(x) and x."""
        gate = self.gate(x)
        return gate * self.inner(x) + (1 - gate) * x


def _vit() -> nn.Sequential:
    w, blocks = WIDTH, list[nn.Module]()
    for _ in range(4):
        mixed = (nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))
        blocks += [Residual(nn.LayerNorm(w), Attention()), Residual(*mixed)]
    head = (nn.LayerNorm(w), MeanOverTime(), nn.Linear(w, DIGITS))
    return nn.Sequential(Patches(), *blocks, *head)


def _mixer() -> nn.Sequential:
    w, blocks = WIDTH, list[nn.Module]()
    for _ in range(4):
        tokens = Transposed(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        mixed = (nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))
        blocks += [Residual(nn.LayerNorm(w), tokens), Residual(*mixed)]
    head = (nn.LayerNorm(w), MeanOverTime(), nn.Linear(w, DIGITS))
    return nn.Sequential(Patches(), *blocks, *head)


def _dense_net() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1)]
    layers += [Dense(8 + 6 * i, 6) for i in range(5)]
    head = (nn.BatchNorm2d(38), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, *head, nn.Linear(4 * 38, DIGITS))


def _deep_sets() -> nn.Sequential:
    w = WIDTH
    of_points = (nn.Linear(2, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU())
    of_sets = (nn.Linear(w, w), nn.ReLU(), nn.Linear(w, CLASSES))
    return nn.Sequential(*of_points, nn.Linear(w, w), MeanOverTime(), *of_sets)


def _stacked_lstm() -> nn.Sequential:
    cell = nn.LSTM(8, WIDTH, num_layers=2, bidirectional=True, batch_first=True)
    return nn.Sequential(Recurrent(cell), nn.Linear(2 * WIDTH, DIGITS))


def _identity_rnn() -> nn.Sequential:
    cell = nn.RNN(8, WIDTH, num_layers=2, nonlinearity="relu", batch_first=True)
    for i in range(2):
        nn.init.eye_(cell.get_parameter(f"weight_hh_l{i}"))
    return nn.Sequential(Recurrent(cell), nn.Linear(WIDTH, DIGITS))


def _deep_cnn() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU()]
    for i in range(7):
        stride = 2 if i == 3 else 1
        layers += [nn.Conv2d(12, 12, 3, stride=stride, padding=1), nn.ReLU()]
    return scaled(
        nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 12, DIGITS)), "relu"
    )


def _tanh_cnn() -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((1, 8), (8, 12), (12, 12)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.Tanh()]
    head = (nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * 12, WIDTH), nn.Tanh())
    return nn.Sequential(*layers, *head, nn.Linear(WIDTH, DIGITS))


def _highway() -> nn.Sequential:
    layers = (Highway() for _ in range(10))
    return nn.Sequential(nn.Linear(20, WIDTH), *layers, nn.Linear(WIDTH, CLASSES))


SECOND: tuple[Net, ...] = (
    Net("vit", _vit, "digits"),
    Net("mixer", _mixer, "digits"),
    Net("dense_net", _dense_net, "digits", optimizer=sgd),
    Net("unet", UNet, "digits", draws=True),
    Net("tied_autoencoder", TiedAutoencoder, "digit_vector", draws=True),
    Net("deep_sets", _deep_sets, "cloud"),
    Net("stacked_lstm", _stacked_lstm, "digit_rows"),
    Net(
        "identity_rnn",
        _identity_rnn,
        "digit_rows",
        optimizer=gentle_sgd,
    ),
    Net("deep_cnn", _deep_cnn, "digits", plain=True, optimizer=sgd),
    Net("tanh_cnn", _tanh_cnn, "digits"),
    Net("highway", _highway),
    Net(
        "mlp_selu_16",
        lambda: mlp(16, nn.SELU, "selu", sizes=(64, DIGITS)),
        "digit_vector",
        plain=True,
    ),
    Net(
        "mlp_leaky_14",
        lambda: mlp(14, nn.LeakyReLU, "relu", sizes=(64, DIGITS)),
        "digit_vector",
        plain=True,
        optimizer=sgd,
    ),
)
"""The networks that judged the rules once."""
