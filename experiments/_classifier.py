"""A classifier whose depth, activation, initialisation and optimizer are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlab.layers import Linear, cross_entropy


class Classifier(LightningModule):
    """A fully connected network: `depth` linear layers, an activation between two.

    The layers are named `linear1` (nearest the input) to `linear<depth>`. Logs
    `loss/train` and `accuracy/train` at every step, `loss/val` and `accuracy/val` after
    every epoch.

    Args:
        in_features: entries of an input, which may have any shape.
        out_features: classes.
        activation: builds one activation; each layer gets its own.
        init: fills a weight in place; the biases start at zero.
        optimizer: takes the parameters and returns the optimizer.
        depth: number of linear layers, the last one included.
        width: outputs of every linear layer but the last.

    Raises:
        ValueError: When a size is smaller than 1, or the optimizer refuses its options.

    Example:
        >>> from torch.nn.init import kaiming_normal_
        >>> net = Classifier(64, 10, nn.ReLU, kaiming_normal_, torch.optim.SGD)
        >>> net(torch.zeros(5, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: Callable[[], nn.Module],
        init: Callable[[Tensor], Any],
        optimizer: OptimizerCallable,
        depth: int = 8,
        width: int = 64,
    ) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "out_features": out_features}
        for name, size in (sizes | {"depth": depth, "width": width}).items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}.")
        self.in_features, self.out_features = in_features, out_features
        self.optimizer = optimizer
        widths = [in_features, *[width] * (depth - 1), out_features]
        self.layers = nn.Sequential()
        for k in range(1, depth + 1):
            linear = Linear(widths[k - 1], widths[k])
            with torch.no_grad():
                _fill(linear.weight, init)
                linear.bias.zero_()
            self.layers.add_module(f"linear{k}", linear)
            if k < depth:
                self.layers.add_module(f"activation{k}", _build(activation))
        self.configure_optimizers()  # a wrong option shows here, before any data load

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (n, out_features) of the inputs (n, ...)."""
        return self.layers(x.flatten(1))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the loss of a batch, and logs it and the accuracy."""
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Logs the loss and the accuracy, as averages over the epoch."""
        self._step(batch, "val")

    def configure_optimizers(self) -> Optimizer:
        """Hands the parameters to `optimizer`."""
        return self.optimizer(self.parameters())

    def _step(self, batch: tuple[Tensor, Tensor], split: str) -> Tensor:
        inputs, labels = batch
        logits = self(inputs)
        loss = cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        n, is_val = len(labels), split == "val"
        self.log(f"loss/{split}", loss, batch_size=n)
        self.log(f"accuracy/{split}", accuracy, batch_size=n, prog_bar=is_val)
        return loss


def _build(activation: Callable[[], nn.Module]) -> nn.Module:
    name = getattr(activation, "__name__", repr(activation))
    try:
        module = activation()
    except TypeError as error:
        raise ValueError(
            f"activation must build an nn.Module without arguments, got {name}: "
            f"{error}. Is it the function in place of the class?"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"activation must build an nn.Module, got {name}, which builds "
            f"{type(module).__name__}."
        )
    return module


def _fill(weight: Tensor, init: Callable[[Tensor], Any]) -> None:
    try:
        init(weight)
    except TypeError as error:
        name = getattr(init, "__name__", repr(init))
        raise ValueError(
            f"init must fill a weight and need nothing else, got {name}: {error}."
        ) from error
