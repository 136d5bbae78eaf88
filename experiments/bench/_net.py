"""A network with what it trains on, and the parts that networks of the zoo share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from ._data import BATCH, WIDTH, Data, batch


class Residual(nn.Module):
    """y = x + f(x).

    Attributes:
        skips: Whether x is added; a fault may take it away.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)
        self.skips = True

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.inner(x) if self.skips else self.inner(x)


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


def scaled(model: nn.Sequential, nonlinearity: str) -> nn.Sequential:
    """He's, Glorot's or LeCun's initialization, the last layer with torch's own.

    Args:
        model: What to initialize.
        nonlinearity: `"relu"`, `"tanh"` or `"selu"`.
    """
    linears = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in linears[:-1]:
        if nonlinearity == "tanh":
            nn.init.xavier_normal_(layer.weight, 5 / 3)
        else:
            gain = "relu" if nonlinearity == "relu" else "linear"
            nn.init.kaiming_normal_(layer.weight, nonlinearity=gain)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def mlp(
    depth: int,
    activation: Callable[[], nn.Module],
    init: str = "",
    bias: bool = True,
    sizes: tuple[int, int] = (20, 5),
) -> nn.Sequential:
    """Hidden layers of one width, `depth` linear layers in all.

    Args:
        depth: How many.
        activation: Between them.
        init: As of `scaled`; empty for torch's own.
        bias: Whether the layers have one.
        sizes: Of the input and of the output.
    """
    layers: list[nn.Module] = [nn.Linear(sizes[0], WIDTH, bias), activation()]
    for _ in range(depth - 2):
        layers += [nn.Linear(WIDTH, WIDTH, bias), activation()]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, sizes[1]))
    return scaled(model, init) if init else model


def adam(model: nn.Module, factor: float) -> Optimizer:
    """Adam.

    Args:
        model: What it trains.
        factor: What the learning rate of 2e-3 is multiplied by.
    """
    return Adam(model.parameters(), lr=2e-3 * factor)


def sgd(model: nn.Module, factor: float) -> Optimizer:
    """SGD with momentum.

    Args:
        model: What it trains.
        factor: What the learning rate of 0.02 is multiplied by.
    """
    return SGD(model.parameters(), lr=0.02 * factor, momentum=0.9)


def gentle_sgd(model: nn.Module, factor: float) -> Optimizer:
    """SGD with momentum, for what takes small steps only.

    Args:
        model: What it trains.
        factor: What the learning rate of 0.002 is multiplied by.
    """
    return sgd(model, 0.1 * factor)


@dataclass(frozen=True)
class Net:
    """One architecture with what it trains on.

    Attributes:
        name: Its name.
        build: Makes it.
        data: What it is given.
        plain: A deep stack with neither skips nor normalization.
        held_out: No threshold was chosen by looking at it.
        optimizer: Makes its optimizer, the learning rate multiplied by a factor.
        draws: Whether it gives back its input: a mean squared error, not classes.
    """

    name: str
    build: Callable[[], nn.Module]
    data: Data = "vector"
    plain: bool = False
    held_out: bool = False
    optimizer: Callable[[nn.Module, float], Optimizer] = adam
    draws: bool = False

    @property
    def adapts(self) -> bool:
        """Whether the optimizer divides by the size of the gradient."""
        return self.optimizer is adam

    def batch(self, maker: Generator, size: int = BATCH) -> tuple[Tensor, Tensor]:
        """Inputs and targets.

        Args:
            maker: The source of the batch.
            size: How many.
        """
        x, y = batch(self.data, maker, size)
        return (x, x) if self.draws else (x, y)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross entropy of classes; the mean squared error of a drawing.

        Args:
            output: What the network gave.
            target: What it should have given.
        """
        if self.draws:
            return nn.functional.mse_loss(output, target)
        return nn.functional.cross_entropy(output, target)

    def accuracy(self, output: Tensor, target: Tensor) -> float:
        """The share of right classes; of pixels that are less than σ / 2 off.

        Args:
            output: What the network gave.
            target: What it should have given.
        """
        if self.draws:
            return float(((output - target).abs() < 0.5).float().mean())
        return float((output.argmax(1) == target).float().mean())
