"""Logs gradient norms of a Lightning run, once an optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
)
from torch import Tensor
from torch.optim import Optimizer

from .._snapshot import Snapshot, Stage
from ..monitor import Monitor
from ..monitor._schedule import EveryNSteps
from ..quantities import GradNorm, Quantity


class GradientMonitor(Callback):
    """Logs the gradient norm of each layer and of the whole model.

    **Logged metrics**, on the axis `trainer.global_step`, to every logger of the
    trainer:

    - `grad_norm/total`: over all parameters; with several optimizers one for each,
      `grad_norm/total/0`, `grad_norm/total/1`, …, over the parameters it updates;
    - `grad_norm/<layer>`: for each module that owns trainable parameters, by its path,
      as `grad_norm/encoder.0`; `grad_norm/root` for what the LightningModule itself
      owns;
    - `grad_norm/<layer>/<parameter>`: with `parameters=True`;
    - the same with the name of every other quantity, as `grad_rms/<layer>`;
    - with the trainer's `gradient_clip_val` also `grad_norm_clipped/…`, after clipping,
      and `clip_coefficient/total`, what the gradient was multiplied by.

    **Stage**: the gradient is read in `on_before_optimizer_step`, so it is accumulated,
    averaged over ranks and unscaled, but not yet clipped (`unscaled`). The loss scale
    of a fused optimizer, which Lightning's hook still sees, is divided out. In manual
    optimization nothing comes between the hook and the step, so the gradient is the one
    that is applied, clipped if you clipped it.

    Step 0 is the gradient of the first update. Frozen parameters, and parameters that
    got no gradient, are not logged; a gradient of NaN is.

    Args:
        every_n_steps: Read the first of every n steps.
        quantities: What to measure; None is `[GradNorm()]`.
        parameters: Whether to log each parameter too.

    Raises:
        ValueError: If `every_n_steps` is not a whole number of at least 1.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> monitor = GradientMonitor(every_n_steps=10)
        >>> Trainer(callbacks=[monitor]).fit(model)  # doctest: +SKIP
    """

    def __init__(
        self,
        every_n_steps: int = 1,
        quantities: Sequence[Quantity] | None = None,
        parameters: bool = False,
    ) -> None:
        self.every_n_steps = EveryNSteps(every_n_steps).n
        self.quantities = (GradNorm(),) if quantities is None else tuple(quantities)
        self.parameters = parameters
        self._monitor: Monitor | None = None
        self._at_step: Monitor | None = None
        self._schedule = EveryNSteps(every_n_steps)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is something to log to, and gradients that can be read.

        Args:
            trainer: The trainer.
            pl_module: The model.
            stage: Only `"fit"` is watched.

        Raises:
            MisconfigurationException: If there is no logger, or gradients are kept in
                flat pieces (FSDP1, DeepSpeed).
        """
        if stage != "fit":
            return
        if not trainer.loggers:
            raise MisconfigurationException(
                "GradientMonitor writes to the trainer's loggers, got a Trainer with "
                "none; remove logger=False, or watch with gradlab.Monitor"
            )
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy)):
            raise MisconfigurationException(
                "GradientMonitor reads whole gradients, got "
                f"{type(trainer.strategy).__name__}, which keeps flat pieces of them; "
                "use ModelParallelStrategy with torch's fully_shard (FSDP2), or DDP"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch.

        Args:
            trainer: The trainer.
            pl_module: The model.
        """
        self._schedule = EveryNSteps(self.every_n_steps)
        # Whole gradients are the same on all ranks; of shards each rank reads its own.
        sharded = any(hasattr(p, "full_tensor") for p in pl_module.parameters())
        if not (trainer.is_global_zero or sharded):
            return
        loggers = _Loggers(trainer, self.parameters)
        sinks = [loggers] if trainer.is_global_zero else []
        before = [q for q in self.quantities if q.feed == "gradient"]
        if before:
            self._monitor = Monitor(pl_module, quantities=before, sinks=sinks)
        after = [q for q in self.quantities if q.feed != "gradient"]
        if trainer.gradient_clip_val and pl_module.automatic_optimization:
            loggers.clips = True
            after = [*before, *after]
        if after:
            self._at_step = Monitor(
                pl_module,
                quantities=after,
                every_n_steps=self.every_n_steps,
                clock=lambda: trainer.global_step,
                scaler=getattr(trainer.precision_plugin, "scaler", None),
                sinks=sinks,
            )
            for optimizer in trainer.optimizers:
                self._at_step.attach(optimizer)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Read the gradient and log it.

        Args:
            trainer: The trainer.
            pl_module: The model.
            optimizer: The optimizer that is about to take a step.
        """
        step = trainer.global_step
        if self._monitor is None or not self._schedule.due(id(optimizer), step):
            return
        stage: Stage = "unscaled" if pl_module.automatic_optimization else "applied"
        several = len(trainer.optimizers) > 1
        self._monitor.observe(
            step,
            stage,
            _loss_scale(trainer, optimizer),
            optimizer=optimizer,
            total=f"total/{_index(trainer, optimizer)}" if several else "total",
        )

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Let go of the model.

        Args:
            trainer: The trainer.
            pl_module: The model.
            stage: What has ended.
        """
        self._let_go()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let go of the model.

        Args:
            trainer: The trainer.
            pl_module: The model.
            exception: What ended the run.
        """
        self._let_go()

    def _let_go(self) -> None:
        if self._at_step is not None:
            self._at_step.detach()
        self._monitor = self._at_step = None


@dataclass
class _Loggers:
    """The sink: all loggers of a trainer."""

    trainer: Trainer
    parameters: bool
    clips: bool = False
    unclipped: dict[str, float] = field(default_factory=dict)

    def __call__(self, snapshot: Snapshot) -> None:
        metrics = snapshot.scalars(self.parameters)
        if self.clips and "grad_norm" in snapshot.quantities:
            total = snapshot.rows[0].name
            norm = snapshot["grad_norm", total]
            if snapshot.stage == "applied":
                before = self.unclipped.get(total, 0.0)
                metrics = {_clipped(tag): value for tag, value in metrics.items()}
                if before:
                    metrics[f"clip_coefficient/{total}"] = norm / before
            else:
                self.unclipped[total] = norm
        for logger in self.trainer.loggers if metrics else ():
            logger.log_metrics(metrics, step=snapshot.step)


def _clipped(tag: str) -> str:
    quantity, _, row = tag.partition("/")
    return f"{quantity}_clipped/{row}"


def _loss_scale(trainer: Trainer, optimizer: Optimizer) -> float | Tensor:
    """The scale the gradient still has: a fused optimizer unscales inside its step."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return 1.0
    # get_scale() would wait for the device.
    device = optimizer.param_groups[0]["params"][0].device
    return scaler.scale(torch.ones((), device=device))


def _index(trainer: Trainer, optimizer: Optimizer) -> int:
    return next(i for i, one in enumerate(trainer.optimizers) if one is optimizer)
