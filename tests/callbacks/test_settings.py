"""GradientMonitor in every setting of a real Trainer: the same properties hold."""

import copy
import math
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import LBFGS, SGD, Adam, Optimizer
from torch.utils.data import DataLoader

from gradlab.callbacks import GradientMonitor
from gradlab.quantities import quantities

STEPS = 200


class Net(LightningModule):
    """A small net that looks at its own gradients, with an optimizer."""

    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1)
        )
        self.optimizer = (kind, options)
        self.norms: list[float] = []

    def training_step(self, batch: Tensor) -> Tensor:
        return (self.body(batch) - 1).square().mean()

    def configure_optimizers(self) -> Any:
        kind, options = self.optimizer
        return kind(self.parameters(), **options)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        self.look(optimizer, scaler.get_scale() if scaler and fused else 1.0)

    def look(self, optimizer: Any, scale: float = 1.0) -> None:
        parameters = optimizer.param_groups[0]["params"]
        grads = [p.grad for p in parameters if p.grad is not None]
        self.norms.append(get_total_norm(grads).item() / scale)


class InTurns(Net):
    """Two optimizers in manual optimization, one of them every other time."""

    def __init__(self) -> None:
        super().__init__(SGD)
        self.automatic_optimization = False

    def training_step(self, batch: Tensor, index: int) -> None:
        head, rest = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
        for optimizer in (head, rest) if index % 2 else (head,):
            optimizer.zero_grad()
            self.manual_backward((self.body(batch) - 1).square().mean())
            self.clip_gradients(optimizer, 0.1, "norm")
            optimizer.step()

    def configure_optimizers(self) -> Any:
        head, rest = self.body[3].parameters(), self.body[0].parameters()
        return SGD(head, lr=0.1), Adam(rest, lr=0.01)


class Kept(Logger):
    """Keeps what is logged."""

    name: Any = "kept"
    version: Any = 0

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("nothing has hyperparameters here")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics.append((-1 if step is None else step, dict(metrics)))

    def totals(self, name: str) -> list[tuple[int, float]]:
        return [
            (step, value)
            for step, metrics in self.metrics
            for tag, value in metrics.items()
            if tag in (f"{name}/total", f"{name}/total/0", f"{name}/total/1")
        ]


class Copying(Callback):
    """In mid-run: copies of the model, and the hooks that it has."""

    def __init__(self) -> None:
        self.twins: list[LightningModule] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any
    ) -> None:
        if trainer.global_step >= 10 and not self.twins:
            pickled: Any = pickle.loads(pickle.dumps(pl_module))
            self.twins += [copy.deepcopy(pl_module), pickled]


@dataclass(frozen=True)
class Setting:
    """A way to train.

    Attributes:
        name: Its name.
        kind: The optimizer of the net; None for two in manual optimization.
        options: Those of the optimizer.
        trainer: Those of the trainer.
        scale: The loss scale of a GradScaler.
        overflows: A batch in which the loss is infinite.
    """

    name: str
    kind: Any = SGD
    options: dict[str, Any] = field(default_factory=lambda: {"lr": 0.05})
    trainer: dict[str, Any] = field(default_factory=dict)
    scale: float | None = None
    overflows: bool = False

    def net(self) -> Net:
        return InTurns() if self.kind is None else Net(self.kind, **self.options)

    def data(self) -> DataLoader[Tensor]:
        """Ten batches an epoch, so that windows of three end with one of one."""
        data: Any = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
        if self.overflows:
            data[20] = math.inf
        return DataLoader(data, batch_size=4)


FUSED = {"lr": 0.01, "fused": True}

SETTINGS = [
    Setting("float32"),
    Setting("bf16-mixed", trainer={"precision": "bf16-mixed"}),
    Setting("scaled", scale=1024.0),
    Setting("scaled, fused", Adam, FUSED, scale=1024.0),
    Setting("skipped steps", Adam, {"lr": 0.01}, scale=1024.0, overflows=True),
    Setting("skipped steps, fused", Adam, FUSED, scale=1024.0, overflows=True),
    Setting("accumulation", trainer={"accumulate_grad_batches": 3}),
    Setting(
        "value clipping",
        trainer={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    ),
    Setting("norm clipping", trainer={"gradient_clip_val": 0.1}),
    Setting("closure of LBFGS", LBFGS, {"lr": 0.01, "max_iter": 2}),
    Setting("manual, two optimizers", None),
]


def fit(
    setting: Setting, steps: int, *callbacks: Callback, logger: Kept | None = None
) -> tuple[Net, Trainer]:
    plugins = []
    if setting.scale is not None:
        scaler = torch.amp.GradScaler("cpu", setting.scale)
        plugins.append(MixedPrecision("16-mixed", "cpu", scaler=scaler))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        callbacks=[*callbacks],
        plugins=plugins,
        logger=logger or False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **setting.trainer,
    )
    net = setting.net()
    trainer.fit(net, setting.data())
    return net, trainer


def same(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> None:
    assert [step for step, _ in one] == [step for step, _ in other]
    for (_, a), (_, b) in zip(one, other, strict=True):
        finite = math.isfinite(a) or math.isfinite(b)
        assert not finite or math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-30)


def hooks(net: Net, trainer: Trainer) -> list[tuple[str, int]]:
    return [
        (key, len(value))
        for thing in (*net.modules(), *trainer.optimizers)
        for key, value in vars(thing).items()
        if "hook" in key and hasattr(value, "__len__")
    ]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_property_holds(setting: Setting) -> None:
    plain, plain_trainer = fit(setting, STEPS)
    random = torch.get_rng_state()
    logger, copying = Kept(), Copying()
    monitor = GradientMonitor(quantities=quantities, parameters=True)
    net, trainer = fit(setting, STEPS, monitor, copying, logger=logger)
    # Watching changes nothing.
    assert torch.equal(random, torch.get_rng_state())
    for one, other in zip(plain.parameters(), net.parameters(), strict=True):
        assert torch.equal(one, other)
    # Every total is torch's, every step has one. LBFGS runs its closure, and
    # Lightning's hook in it, twice a step.
    norms = net.norms[:: 2 if setting.kind is LBFGS else 1]
    same(logger.totals("grad_norm"), [*enumerate(norms)])
    # No hook is left, and copies in mid-run were not watched.
    assert hooks(net, trainer) == hooks(plain, plain_trainer)
    count = len(logger.metrics)
    for twin in copying.twins:
        twin.body(torch.ones(2, 3)).sum().backward()
    assert len(copying.twins) == 2
    assert len(logger.metrics) == count
