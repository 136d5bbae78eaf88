"""Small networks that train healthily, each with its data: the controls of `faults`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

WIDTH, CLASSES, BATCH, STEPS_OF_A_SEQUENCE = 32, 5, 32, 16


class Residual(nn.Module):
    """y = x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.inner(x)


class Attention(nn.Module):
    """Self-attention over `[batch, time, width]`."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """What attention gives; the weights are not wanted."""
        return self.heads(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    """A recurrent network's output at the last step of the sequence."""

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        """From `[batch, time, width]` to `[batch, width]`."""
        return self.cell(x)[0][:, -1]


class MeanOverTime(nn.Module):
    """From `[batch, time, width]` to `[batch, width]`."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean(1)


def _scaled(model: nn.Sequential, nonlinearity: str) -> nn.Sequential:
    """He's or Glorot's initialization, the last layer with gain 1."""
    linears = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in linears[:-1]:
        if nonlinearity == "relu":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(layer.weight, 5 / 3)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def mlp(
    depth: int, activation: Callable[[], nn.Module], init: str = "", bias: bool = True
) -> nn.Sequential:
    """Hidden layers of one width, `depth` linear layers in all.

    Args:
        depth: How many.
        activation: Between them.
        init: `"relu"` or `"tanh"` for He's or Glorot's, empty for torch's own.
        bias: Whether the layers have one.
    """
    layers: list[nn.Module] = [nn.Linear(20, WIDTH, bias), activation()]
    for _ in range(depth - 2):
        layers += [nn.Linear(WIDTH, WIDTH, bias), activation()]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))
    return _scaled(model, init) if init else model


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
    return nn.Sequential(
        nn.Embedding(40, w), *layers, nn.LayerNorm(w), MeanOverTime(), nn.Linear(w, 5)
    )


def _cnn(normalized: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(((1, 8), (8, 8), (8, 16), (16, 16), (16, 16))):
        layers.append(nn.Conv2d(a, b, 3, stride=2 if i == 2 else 1, padding=1))
        layers += [nn.BatchNorm2d(b)] if normalized else []
        layers.append(nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES))
    return _scaled(nn.Sequential(*layers, *head), "relu")


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


def _adam(model: nn.Module, factor: float) -> Optimizer:
    return Adam(model.parameters(), lr=2e-3 * factor)


def _sgd(model: nn.Module, factor: float) -> Optimizer:
    return SGD(model.parameters(), lr=0.02 * factor, momentum=0.9)


@dataclass(frozen=True)
class Net:
    """One architecture with what it trains on.

    Attributes:
        name: Its name.
        build: Makes it.
        data: `"vector"`, `"image"`, `"sequence"` or `"token"`.
        plain: A deep stack with neither skips nor normalization.
        held_out: No threshold was chosen by looking at it.
        optimizer: Makes its optimizer, the learning rate multiplied by a factor.
    """

    name: str
    build: Callable[[], nn.Sequential]
    data: str = "vector"
    plain: bool = False
    held_out: bool = False
    optimizer: Callable[[nn.Module, float], Optimizer] = _adam

    def batch(self, maker: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and labels of one batch: noisy prototypes, one a class.

        Args:
            maker: The source of the batch; the prototypes are always the same.
        """
        always = torch.Generator().manual_seed(1)
        y = torch.randint(CLASSES, (BATCH,), generator=maker)
        if self.data == "token":
            words = torch.randint(40, (CLASSES, STEPS_OF_A_SEQUENCE), generator=always)
            noise = torch.randint(40, (BATCH, STEPS_OF_A_SEQUENCE), generator=maker)
            kept = torch.rand(noise.shape, generator=maker) < 0.6
            return torch.where(kept, words[y], noise), y
        shape = {
            "vector": (20,),
            "image": (1, 12, 12),
            "sequence": (STEPS_OF_A_SEQUENCE, WIDTH),
        }[self.data]
        prototypes = torch.randn(CLASSES, *shape, generator=always)
        return prototypes[y] + torch.randn(BATCH, *shape, generator=maker), y


def _rnn_relu() -> nn.RNNBase:
    cell = nn.RNN(WIDTH, WIDTH, nonlinearity="relu", batch_first=True)
    nn.init.eye_(cell.get_parameter("weight_hh_l0"))  # Le, Jaitly, Hinton 2015
    return cell


NETS: tuple[Net, ...] = (
    Net("mlp_relu_4", lambda: mlp(4, nn.ReLU, "relu"), plain=True),
    Net("mlp_relu_12", lambda: mlp(12, nn.ReLU, "relu"), plain=True),
    Net("mlp_tanh_8", lambda: mlp(8, nn.Tanh, "tanh"), plain=True, optimizer=_sgd),
    Net("residual_mlp", _residual_mlp),
    Net("cnn", lambda: _cnn(False), "image", plain=True),
    Net("transformer", _transformer, "token"),
    Net("gru", _recurrent(lambda: nn.GRU(WIDTH, WIDTH, batch_first=True)), "sequence"),
    Net(
        "mlp_relu_10_sgd",
        lambda: mlp(10, nn.ReLU, "relu"),
        plain=True,
        held_out=True,
        optimizer=_sgd,
    ),
    Net(
        "mlp_tanh_6_no_bias",
        lambda: mlp(6, nn.Tanh, "tanh", bias=False),
        plain=True,
        held_out=True,
    ),
    Net("mlp_gelu_6", lambda: mlp(6, nn.GELU, "relu"), plain=True, held_out=True),
    Net("mlp_batch_norm", _normalized_mlp, held_out=True, optimizer=_sgd),
    Net("cnn_batch_norm", lambda: _cnn(True), "image", held_out=True),
    Net("residual_cnn", _residual_cnn, "image", held_out=True, optimizer=_sgd),
    Net(
        "lstm",
        _recurrent(lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True)),
        "sequence",
        held_out=True,
    ),
    Net("rnn_relu", _recurrent(_rnn_relu), "sequence", held_out=True),
)
"""Every control."""
