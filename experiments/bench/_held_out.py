"""Networks that judge the rules: no threshold was chosen by looking at them.

They were written when the rules were settled, and looked at only for whether they
train. A rule that is changed because of what it says here makes them tuning networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._data import CLASSES, WIDTH, WORDS
from ._net import Attention, MeanOverTime, Net, Recurrent, Residual, mlp, scaled, sgd

DIGITS = 10


class Causal(nn.Module):
    """A dilated convolution over time that is gated: tanh(a) σ(b), plus its input."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((dilation, 0), 0.0)
        self.conv = nn.Conv1d(WIDTH, 2 * WIDTH, 2, dilation=dilation)
        self.tanh, self.gate = nn.Tanh(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """From `[batch, width, time]` to the same."""
        a, b = self.conv(self.pad(x)).chunk(2, 1)
        return x + self.tanh(a) * self.gate(b)


class LastOverTime(nn.Module):
    """From `[batch, width, time]` to `[batch, width]`."""

    def forward(self, x: Tensor) -> Tensor:
        """The last."""
        return x[..., -1]


class Swap(nn.Module):
    """From `[batch, time, width]` to `[batch, width, time]`."""

    def forward(self, x: Tensor) -> Tensor:
        """The transpose."""
        return x.mT


class Excite(nn.Module):
    """x times a gate for each channel, from the means of all (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(channels, channels // 2),
            nn.ReLU(),
            nn.Linear(channels // 2, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Some channels louder than others."""
        return x * self.inner(x.mean((2, 3)))[..., None, None]


class SwiGLU(nn.Module):
    """W₃ (silu(W₁ x) ⊙ W₂ x) without biases (Shazeer 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.silu = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """From width to width."""
        return self.down(self.silu(self.gate(x)) * self.up(x))


class ReZero(nn.Module):
    """y = x + α f(x), α = 0 at the start (Bachlechner et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
        )
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.alpha * self.inner(x)


class GridConvolution(nn.Module):
    """A X W over the 64 pixels as a graph, A its normalized neighbours."""

    neighbours: Tensor

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.linear = nn.Linear(a, b)
        place = torch.arange(64)
        row, column = place // 8, place % 8
        far = (row - row[:, None]).abs() + (column - column[:, None]).abs()
        near = (far <= 1).float()
        self.register_buffer("neighbours", near / near.sum(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """From `[batch, 64, a]` to `[batch, 64, b]`."""
        return self.linear(self.neighbours @ x)


class Latents(nn.Module):
    """Eight learned queries attend to the rows of an image (Jaegle et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(8, WIDTH))
        self.queries = nn.Parameter(torch.randn(8, WIDTH))
        self.heads = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """From `[batch, 8, 8]` to `[batch, 8, width]`."""
        rows = self.embed(x) + self.places
        queries = self.queries.expand(len(x), -1, -1)
        return self.heads(queries, rows, rows, need_weights=False)[0]


def _wave_net() -> nn.Sequential:
    layers = [Causal(2**i) for i in range(4)]
    return nn.Sequential(Swap(), *layers, LastOverTime(), nn.Linear(WIDTH, CLASSES))


def _excited_cnn() -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((1, 8), (8, 16), (16, 16), (16, 16)):
        conv = nn.Conv2d(a, b, 3, padding=1, bias=False)
        layers += [conv, nn.GroupNorm(4, b), nn.ReLU(), Excite(b)]
    head = (nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4 * 16, DIGITS))
    return nn.Sequential(*layers, *head)


def _swiglu_mlp() -> nn.Sequential:
    blocks = (Residual(nn.RMSNorm(WIDTH), SwiGLU()) for _ in range(5))
    head = (nn.RMSNorm(WIDTH), nn.Linear(WIDTH, DIGITS))
    return nn.Sequential(nn.Linear(64, WIDTH), *blocks, *head)


def _rezero_mlp() -> nn.Sequential:
    blocks = (ReZero() for _ in range(6))
    return nn.Sequential(nn.Linear(64, WIDTH), *blocks, nn.Linear(WIDTH, DIGITS))


def _grid_network() -> nn.Sequential:
    sizes = ((1, 16), (16, 32), (32, 32))
    layers = [part for pair in sizes for part in (GridConvolution(*pair), nn.ELU())]
    return nn.Sequential(
        nn.Unflatten(1, (64, 1)), *layers, nn.Flatten(), nn.Linear(64 * 32, DIGITS)
    )


def _latent_attention() -> nn.Sequential:
    w = WIDTH
    mixed = (nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))
    layers = (Residual(nn.LayerNorm(w), Attention()), Residual(*mixed))
    return nn.Sequential(Latents(), *layers, MeanOverTime(), nn.Linear(w, DIGITS))


def _post_norm_transformer() -> nn.Sequential:
    w, layers = WIDTH, list[nn.Module]()
    for _ in range(3):
        mixed = (nn.Linear(w, 2 * w), nn.ReLU(), nn.Linear(2 * w, w))
        layers += [Residual(Attention()), nn.LayerNorm(w)]
        layers += [Residual(*mixed), nn.LayerNorm(w)]
    head = (MeanOverTime(), nn.Linear(w, CLASSES))
    return nn.Sequential(nn.Embedding(WORDS, w), *layers, *head)


def _token_gru() -> nn.Sequential:
    cell = nn.GRU(WIDTH, WIDTH, num_layers=2, batch_first=True)
    head = nn.Linear(WIDTH, CLASSES)
    return nn.Sequential(nn.Embedding(WORDS, WIDTH), Recurrent(cell), head)


def _elu_cnn() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, 10, 3, padding=1), nn.ELU()]
    for i in range(5):
        stride = 2 if i == 2 else 1
        layers += [nn.Conv2d(10, 10, 3, stride=stride, padding=1), nn.ELU()]
    head = (nn.Flatten(), nn.Linear(160, DIGITS))
    return scaled(nn.Sequential(*layers, *head), "relu")


def _relu_rnn() -> nn.Sequential:
    cell = nn.RNN(WIDTH, 48, nonlinearity="relu", batch_first=True)
    nn.init.orthogonal_(cell.get_parameter("weight_hh_l0"), 0.9)
    head = (nn.Linear(48, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))
    return nn.Sequential(Recurrent(cell), *head)


HELD_OUT: tuple[Net, ...] = (
    Net("wave_net", _wave_net, "sequence", held_out=True),
    Net("excited_cnn", _excited_cnn, "digits", held_out=True),
    Net("swiglu_mlp", _swiglu_mlp, "digit_vector", held_out=True),
    Net("rezero_mlp", _rezero_mlp, "digit_vector", held_out=True),
    Net("grid_network", _grid_network, "digit_vector", held_out=True),
    Net("latent_attention", _latent_attention, "digit_rows", held_out=True),
    Net("post_norm_transformer", _post_norm_transformer, "token", held_out=True),
    Net("token_gru", _token_gru, "token", held_out=True),
    Net("relu_rnn", _relu_rnn, "sequence", held_out=True),
    Net("elu_cnn", _elu_cnn, "digits", plain=True, held_out=True, optimizer=sgd),
    Net(
        "mlp_silu_11",
        lambda: mlp(11, nn.SiLU, "relu", sizes=(64, DIGITS)),
        "digit_vector",
        plain=True,
        held_out=True,
    ),
    Net(
        "mlp_relu_7",
        lambda: mlp(7, nn.ReLU, "relu", sizes=(64, DIGITS)),
        "digit_vector",
        plain=True,
        held_out=True,
        optimizer=sgd,
    ),
)
"""The networks that judge the rules."""
