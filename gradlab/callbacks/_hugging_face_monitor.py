"""Watches a run of Hugging Face's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from ._end_of_backward import EndOfBackward
from ._watch import Watch

try:
    from transformers import (
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ImportError as error:
    raise ImportError(
        "HuggingFaceMonitor is a callback of transformers.Trainer, and transformers "
        f"with accelerate cannot be imported ({error}); pip install "
        "'torch-gradlab[huggingface]'"
    ) from error


class HuggingFaceMonitor(Watch, TrainerCallback):
    """Logs the gradient norm of each layer of a run of `transformers.Trainer`.

    Options and tags are those of `gradlab.callbacks.GradientMonitor`; the axis is
    `state.global_step` before the step, so 0 is the gradient of the first update. All
    is written to `<output_dir>/gradlab/version_<N>`, with the next free N, or the last
    one in a run that is resumed; `tensorboard --logdir <output_dir>` shows it, and
    `gradlab.read_run` reads it. The second HuggingFaceMonitor of a Trainer writes below
    `<output_dir>/gradlab_1`, and so on in the order of the callbacks. A directory that
    cannot be written to does not end the run: it is said once, what is lost is counted
    in `monitor.lost`, and the files are made when they can be.

    **Stage**: the Trainer clips by default (`max_grad_norm=1.0`), and has no event
    between the backward pass and the clipping. The gradient is read when the engine
    ends the backward pass of the last microbatch: accumulated, averaged over ranks, the
    loss scale divided out, not yet clipped (`unscaled`). At the step it is read again
    (`grad_norm_applied/…`), and `clip_coefficient/…` is the ratio. Where nothing
    tells that the pass has ended, only what is applied is read.

    If `train()` raises, call `detach()` or `train()` again: the Trainer has no event
    for it, and the hooks stay until then.

    Example:
        >>> from transformers import Trainer  # doctest: +SKIP
        >>> monitor = HuggingFaceMonitor(every_n_steps=10)  # doctest: +SKIP
        >>> Trainer(model, args, callbacks=[monitor]).train()  # doctest: +SKIP
    """

    _watching: ClassVar[WeakSet[HuggingFaceMonitor]] = WeakSet()
    _end: EndOfBackward | None = None
    _state: TrainerState | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        **kwargs: Any,
    ) -> None:
        """Begin to watch.

        Args:
            args: The arguments of the Trainer.
            state: Has the step.
            control: Not used.
            model: The model, not wrapped.
            optimizer: Wrapped by accelerate.
            **kwargs: Not used.

        Raises:
            ValueError: If gradients are kept in flat pieces (FSDP1, DeepSpeed).
        """
        flat = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
        if args.deepspeed or flat:
            raise ValueError(
                "HuggingFaceMonitor reads whole gradients, got a run of "
                f"{'FSDP1' if flat else 'DeepSpeed'}, which keeps flat pieces of them; "
                "use FSDP2 (fsdp_version: 2), or DDP"
            )
        self.detach()
        inner = _inner(optimizer)
        scaler: GradScaler | None = getattr(optimizer, "scaler", None)
        # A callback is not told of the others; those of a run share its state.
        index = sum(one._state is state for one in self._watching)
        self._state = state
        self._watching.add(self)
        runs = Path(args.output_dir or ".") / self._folder(index)
        self._begin(
            model,
            [inner],
            clock=lambda: state.global_step,
            scaler=scaler,
            folder=_run_dir(runs, state.global_step > 0),
            writes=state.is_world_process_zero,
        )
        monitor, accumulation = (
            self._monitor,
            getattr(optimizer, "gradient_state", None),
        )
        if monitor is None or accumulation is None or not args.max_grad_norm > 0:
            return
        self._end = EndOfBackward(
            model.parameters(),
            lambda: accumulation.sync_gradients,
            lambda: monitor.before_clipping(inner, _scale(inner, scaler)),
        )

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Get ready for the next backward pass.

        Args:
            args: Not used.
            state: Not used.
            control: Not used.
            **kwargs: Not used.
        """
        if self._end is not None:
            self._end.step_taken()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> TrainerControl:
        """Stop the run if an action asks for it.

        Args:
            args: Not used.
            state: Not used.
            control: What is told to stop.
            **kwargs: Not used.

        Returns:
            The control.
        """
        if self._should_stop():
            control.should_training_stop = True
        return control

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Let go of the model.

        Args:
            args: Not used.
            state: Not used.
            control: Not used.
            **kwargs: Not used.
        """
        self.detach()

    def detach(self) -> None:
        """Leave no hook behind and close the files; safe to call twice."""
        if self._end is not None:
            self._end.remove()
        self._end = self._state = None
        self._let_go()


def _inner(optimizer: Optimizer) -> Optimizer:
    """The optimizer inside accelerate's, which calls no hooks of its own."""
    while isinstance(inside := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inside
    return optimizer


def _scale(optimizer: Optimizer, scaler: GradScaler | None) -> float | Tensor:
    """What the loss is multiplied by; get_scale() would wait for the device."""
    if scaler is None:
        return 1.0
    device = optimizer.param_groups[0]["params"][0].device
    return scaler.scale(torch.ones((), device=device))


def _run_dir(folder: Path, resumed: bool) -> Path:
    """Where a new run is written to, or goes on."""
    names = [path.name for path in folder.glob("version_*")]
    numbers = [int(n) for name in names if (n := name[8:]).isdecimal()]
    last = max(numbers, default=-1)
    number = last if resumed and numbers else last + 1
    return folder / f"version_{number}"
