"""Watches a Lightning run."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from .._snapshot import Snapshot, Stage
from ._watch import Watch


class GradientMonitor(Watch, Callback):
    """Logs the gradient norm of each layer and of the whole model of a Lightning run.

    **Metrics**, on the axis `trainer.global_step`:

    - `grad_norm/total`: over all parameters; with several optimizers one for each,
      `grad_norm/total/0`, `grad_norm/total/1`, …, over the parameters it updates;
    - `grad_norm/<layer>`: for each module that owns trainable parameters, by its path,
      as `grad_norm/encoder.0`; `grad_norm/root` for what the LightningModule itself
      owns;
    - `grad_norm/<layer>/<parameter>`: with `parameters=True`;
    - the same with the name of every other quantity, as `grad_rms/<layer>`;
    - if the gradient is clipped also `grad_norm_applied/…`, after clipping, and
      `clip_coefficient/…`, the ratio.

    With a TensorBoardLogger they go to `<log_dir>/gradlab`, with the tables that
    `gradlab.read_run(log_dir)` reads: a directory of its own, since TensorBoard may
    follow only one of two files that grow in one. The second GradientMonitor of a
    Trainer writes to `<log_dir>/gradlab_1`, and so on in the order of the callbacks;
    read them by these names. Any other logger gets the metrics by its `log_metrics`.

    A directory that cannot be written to does not end the run: it is said once, what is
    lost is counted in `monitor.lost`, and the files are made when they can be.

    **Stage**: the gradient is read in `on_before_optimizer_step`, so it is accumulated,
    averaged over ranks and unscaled, but not yet clipped (`unscaled`); what is clipped
    after that is read again (`applied`). The loss scale of a fused optimizer, which
    Lightning's hook still sees, is divided out. In manual optimization nothing comes
    between the hook and the step, so the gradient is the one that is applied, clipped
    if you clipped it.

    Step 0 is the gradient of the first update. Frozen parameters are not logged, nor
    are layers without a gradient; a gradient of NaN is.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> monitor = GradientMonitor(every_n_steps=10)
        >>> Trainer(callbacks=[monitor]).fit(model)  # doctest: +SKIP
    """

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
        if not (trainer.loggers or self.sinks):
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
        # A log directory may also be the address of a remote one.
        local = (
            logger
            for logger in trainer.loggers
            if isinstance(logger, TensorBoardLogger) and "://" not in logger.log_dir
        )
        files = next(local, None)
        callbacks: list[Callback] = getattr(trainer, "callbacks", [])
        monitors = [one for one in callbacks if isinstance(one, GradientMonitor)]
        # It may be inside another callback.
        index = monitors.index(self) if self in monitors else 0
        self._begin(
            pl_module,
            trainer.optimizers,
            clock=lambda: trainer.global_step,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            folder=None if files is None else Path(files.log_dir) / self._folder(index),
            writes=trainer.is_global_zero,
            sinks=[
                _Metrics(logger, self.parameters)
                for logger in trainer.loggers
                if logger is not files
            ],
        )

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Read the gradient before it is clipped.

        Args:
            trainer: The trainer.
            pl_module: The model.
            optimizer: The optimizer that is about to take a step.
        """
        # In manual optimization the step is next, and the monitor reads it by itself.
        if self._monitor is not None and pl_module.automatic_optimization:
            self._monitor.before_clipping(optimizer, _loss_scale(trainer, optimizer))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop the run if an action asks for it.

        Args:
            trainer: The trainer.
            pl_module: The model.
            outputs: Not used.
            batch: Not used.
            batch_idx: Not used.
        """
        if self._should_stop():
            trainer.should_stop = True

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
        """Let go of the model; what was found, and the steps before, are written.

        Args:
            trainer: The trainer.
            pl_module: The model.
            exception: What ended the run.
        """
        self._let_go(exception)


class _Metrics:
    """The sink of a logger that takes the numbers of a step as one dictionary."""

    def __init__(self, logger: Logger, parameters: bool) -> None:
        self._logger = logger
        self._parameters = parameters
        self._stages: dict[str, Stage] = {}
        self._step = 0
        self._metrics: dict[str, float] = {}

    def __call__(self, snapshot: Snapshot) -> None:
        if snapshot.step != self._step:
            self.flush()
            self._step = snapshot.step
        for tag, value in snapshot.scalars(self._parameters).items():
            quantity, _, row = tag.partition("/")
            # The same tags as an EventFileWriter's.
            if self._stages.setdefault(quantity, snapshot.stage) != snapshot.stage:
                tag = f"{quantity}_{snapshot.stage}/{row}"
            self._metrics[tag] = value

    def flush(self) -> None:
        metrics, self._metrics = self._metrics, {}
        if metrics:
            self._logger.log_metrics(metrics, step=self._step)


def _loss_scale(trainer: Trainer, optimizer: Optimizer) -> float | Tensor:
    """The scale the gradient still has: a fused optimizer unscales inside its step."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return 1.0
    # get_scale() would wait for the device.
    device = optimizer.param_groups[0]["params"][0].device
    return scaler.scale(torch.ones((), device=device))
