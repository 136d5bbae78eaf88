"""Small models, one a difficulty. Every batch is `[4, 3]`, floating."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab import layers


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5), nn.Linear(5, 1))


def frozen() -> nn.Module:
    model = mlp()
    model.get_submodule("2").requires_grad_(False)
    return model


def in_place() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 8)),
        *(nn.ELU(inplace=True), nn.Linear(8, 1)),
    )


def random_and_running() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 1, 3)), nn.Conv2d(1, 4, (1, 2)), nn.BatchNorm2d(4)),
        *(nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 1)),
    )


def of_gradlab() -> nn.Module:
    return nn.Sequential(
        *(layers.Linear(3, 8), layers.LayerNorm(8), layers.GELU()),
        *(layers.Linear(8, 4), layers.Tanh(), layers.Linear(4, 1)),
    )


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Twice(nn.Module):
    """One layer that is called twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Unused(nn.Module):
    """A layer that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = mlp(), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Pair(nn.Module):
    """Two nets with an optimizer each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class SparseEmbedding(nn.Module):
    """Its weight gets sparse gradients, with rows that come twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4, sparse=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table((x.abs() * 3).long().clamp(max=5)))


class ComplexLinear(nn.Module):
    """A complex matrix and a complex output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.weight.dtype) @ self.weight


class Complex(nn.Module):
    """Complex in the middle, real at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.waves, self.head = ComplexLinear(), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.waves(x).abs())


class Checkpointed(nn.Module):
    """A block that is computed again in the backward pass."""

    reentrant = False

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 1)
        self.block = nn.Sequential(
            nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 4), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(x)


class CheckpointedReentrant(Checkpointed):
    """The same of the older kind."""

    reentrant = True


@dataclass
class Output:
    index: Tensor
    hidden: Tensor


class Wrapped(nn.Module):
    """Layers whose outputs are no tensors."""

    def __init__(self, dataclass: bool) -> None:
        super().__init__()
        self.body = _Wrapping(dataclass)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: Any = self.body(x)
        hidden = found.hidden if isinstance(found, Output) else found["hidden"]
        return {"prediction": self.head(torch.tanh(hidden))}


class _Wrapping(nn.Module):
    def __init__(self, dataclass: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4) / 2)
        self.kind: Any = Output if dataclass else dict

    def forward(self, x: Tensor) -> Any:
        return self.kind(index=torch.arange(len(x)), hidden=x @ self.weight)


def dict_output() -> nn.Module:
    return Wrapped(dataclass=False)


def dataclass_output() -> nn.Module:
    return Wrapped(dataclass=True)


class Attention(nn.Module):
    """Layers whose weights are used without a call, and one that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, 4, batch_first=True)
        self.block = nn.TransformerEncoderLayer(4, 2, 8, 0.1, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.recurrent(x.unsqueeze(-1))[0]))
