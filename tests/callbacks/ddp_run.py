"""A run of two ranks under Lightning's DDP, started by test_gradient_monitor.py.

Lightning starts the second rank itself, from this same file.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader

from gradlab.callbacks import GradientMonitor


class Net(LightningModule):
    """One layer that keeps the norm of its reduced gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3, 1)
        self.norms: list[float] = []

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return self.fc(batch).square().mean()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        self.norms.append(get_total_norm(grads).item())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Tensor]:
        data: Any = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
        return DataLoader(data, batch_size=2)


def fit(folder: Path, *callbacks: Callback) -> tuple[Net, Trainer]:
    model = Net()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        logger=TensorBoardLogger(folder) if callbacks else False,
        callbacks=[*callbacks],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return model, trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    plain, _ = fit(folder)
    model, trainer = fit(folder, GradientMonitor())
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other), "watching changed a weight"
    if trainer.is_global_zero:
        (folder / "norms.json").write_text(json.dumps(model.norms))
    dist.barrier()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
