"""Small networks that train healthily: the controls of `faults`.

The thresholds of the pathologies were chosen on the networks of this file and of
`_second_zoo`. Those of `_held_out` were written when the rules were settled, and serve
to judge them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ._data import CLASSES, WIDTH, WORDS
from ._held_out import HELD_OUT
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
from ._second_zoo import SECOND


def _residual_mlp() -> nn.Sequential:
    w = WIDTH
    blocks = (
        Residual(nn.LayerNorm(w), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, w))
        for _ in range(6)
    )
    return nn.Sequential(nn.Linear(20, w), *blocks, nn.Linear(w, CLASSES))


def _normalized_mlp() -> nn.Sequential:
    layers: list[nn.Module] = []
    for n in (20, *(WIDTH,) * 5):
        layers += [nn.Linear(n, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def _transformer() -> nn.Sequential:
    w = WIDTH
    layers: list[nn.Module] = []
    for _ in range(4):
        mixed = (nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))
        layers += [Residual(nn.LayerNorm(w), Attention()), Residual(*mixed)]
    head = (nn.LayerNorm(w), MeanOverTime(), nn.Linear(w, CLASSES))
    return nn.Sequential(nn.Embedding(WORDS, w), *layers, *head)


def _cnn(normalized: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(((1, 8), (8, 8), (8, 16), (16, 16), (16, 16))):
        layers.append(nn.Conv2d(a, b, 3, stride=2 if i == 2 else 1, padding=1))
        layers += [nn.BatchNorm2d(b)] if normalized else []
        layers.append(nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES))
    return scaled(nn.Sequential(*layers, *head), "relu")


def _residual_cnn() -> nn.Sequential:
    def conv() -> nn.Conv2d:
        return nn.Conv2d(8, 8, 3, padding=1, bias=False)

    blocks = (
        Residual(conv(), nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.BatchNorm2d(8))
        for _ in range(4)
    )
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES))
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *blocks, nn.ReLU(), *head)


def _recurrent(cell: Callable[[], nn.RNNBase]) -> Callable[[], nn.Sequential]:
    return lambda: nn.Sequential(Recurrent(cell()), nn.Linear(WIDTH, CLASSES))


def _rnn_relu() -> nn.RNNBase:
    cell = nn.RNN(WIDTH, WIDTH, nonlinearity="relu", batch_first=True)
    nn.init.eye_(cell.get_parameter("weight_hh_l0"))  # Le, Jaitly, Hinton 2015
    return cell


def _gru() -> nn.RNNBase:
    return nn.GRU(WIDTH, WIDTH, batch_first=True)


def _lstm() -> nn.RNNBase:
    return nn.LSTM(WIDTH, WIDTH, batch_first=True)


TUNING: tuple[Net, ...] = (
    Net("mlp_relu_4", lambda: mlp(4, nn.ReLU, "relu"), plain=True),
    Net("mlp_relu_12", lambda: mlp(12, nn.ReLU, "relu"), plain=True),
    Net("mlp_tanh_8", lambda: mlp(8, nn.Tanh, "tanh"), plain=True, optimizer=sgd),
    Net("mlp_relu_10_sgd", lambda: mlp(10, nn.ReLU, "relu"), plain=True, optimizer=sgd),
    Net("mlp_tanh_6_no_bias", lambda: mlp(6, nn.Tanh, "tanh", bias=False), plain=True),
    Net("mlp_gelu_6", lambda: mlp(6, nn.GELU, "relu"), plain=True),
    Net("mlp_batch_norm", _normalized_mlp, optimizer=sgd),
    Net("residual_mlp", _residual_mlp),
    Net("cnn", lambda: _cnn(False), "image", plain=True),
    Net("cnn_batch_norm", lambda: _cnn(True), "image"),
    Net("residual_cnn", _residual_cnn, "image", optimizer=sgd),
    Net("transformer", _transformer, "token"),
    Net("gru", _recurrent(_gru), "sequence"),
    Net("lstm", _recurrent(_lstm), "sequence"),
    Net("rnn_relu", _recurrent(_rnn_relu), "sequence"),
    Net("rnn_relu_sgd", _recurrent(_rnn_relu), "sequence", optimizer=gentle_sgd),
    *SECOND,
)
"""The networks that thresholds were chosen on."""

NETS: tuple[Net, ...] = (*TUNING, *HELD_OUT)
"""Every network."""
