"""Quantities of activations in a real Lightning run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gradlab.callbacks import GradientMonitor
from gradlab.quantities import GradNorm, OutputGradRMS


class Net(LightningModule):
    """A chain that keeps the gradient of its first output, as the loss scaled it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.chain = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.scale = 1.0
        self.kept: list[Tensor] = []

    def training_step(self, batch: Tensor) -> Tensor:
        first = self.chain[0](batch)
        first.register_hook(lambda g: self.kept.append(g.detach().clone()))
        return self.chain[1:](first).square().mean()

    def validation_step(self, batch: Tensor) -> None:
        self.chain(batch * 100)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Tensor]:
        maker = torch.Generator().manual_seed(1)
        data: Any = torch.randn(24, 3, generator=maker)
        return DataLoader(data, batch_size=4)

    val_dataloader = train_dataloader


@pytest.mark.parametrize("scaled", [False, True])
def test_logged_once_an_optimizer_step(scaled: bool, tmp_path: Path) -> None:
    model = Net()
    scale = 1024.0 if scaled else 1.0
    options: dict[str, Any] = {}
    if scaled:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        options["plugins"] = MixedPrecision("16-mixed", "cpu", scaler)
    logged: list[tuple[int, dict[str, float]]] = []

    class Logger(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            logged.append((step or 0, dict(metrics)))

    Trainer(
        accelerator="cpu",
        max_epochs=2,
        log_every_n_steps=1,
        accumulate_grad_batches=2,
        logger=Logger(tmp_path),
        callbacks=[GradientMonitor(2, [GradNorm(), OutputGradRMS()])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    ).fit(model)
    found = {
        step: metrics["output_grad_rms/chain.0"]
        for step, metrics in logged
        if "output_grad_rms/chain.0" in metrics
    }
    assert list(found) == [0, 2, 4]
    for step, number in found.items():
        pair = torch.cat(model.kept[2 * step : 2 * step + 2]).float() / scale
        expected = pair.square().mean().sqrt().item()
        assert number == pytest.approx(expected, rel=1e-3)
    assert not any(module._forward_hooks for module in model.modules())
