"""What all callbacks share: the options, and the monitor that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from ..monitor import Action, Findings, Monitor
from ..monitor._known_functions import Op
from ..monitor._schedule import EveryNSteps
from ..monitor._sinks import Sink, Sinks
from ..pathologies import Pathology
from ..quantities import Quantity
from ..tensorboard._writer import Scalars
from ._event_file import event_file


class Watch:
    """Watches the run of a trainer, with the options of `gradlab.Monitor`.

    Args:
        every_n_steps: Read the first of every n optimizer steps.
        quantities: What to measure. None is the gradient's norm, rms and count of
            non-finite entries, the clip coefficient, the update ratio, and whatever
            `pathologies` need.
        parameters: Whether to write each parameter too, not only the layers.
        start: The first step to read.
        end: The first step not to read any more; None reads to the end.
        modules: Globs on module paths: the layers to have rows. The total stays that of
            the model.
        activations: Whether to watch the outputs of modules too, or globs on the paths
            of those to watch; None if a quantity of activations is named.
        budget: The share of the run's time that watching may take, as 0.02; it then
            reads as often as that allows.
        pathologies: What to look for: True is all that are on by default. Findings go
            to the terminal, to `findings.jsonl` and to TensorBoard's text tab; the
            steps that led there to `recording.json`.
        actions: What to do about findings.
        dry_run: Whether actions only say what they would do.
        trace: Whether to trace the first non-finite gradient back to the operation, the
            line and the entries of the batch that made it.
        live_gradcheck: Compare explicit backwards with autograd of their references on
            rows of the real batch, the first of every so many steps.
        functions: Your Functions to compare beside gradlab's: a Function, a pair of one
            and its reference, or an OpInfo.
        scalars: Which numbers are written as standard scalars beside the tables:
            `"all"`, `"off"`, or `"top"`, the total and the ten that moved most.
        sinks: What else is called with each snapshot, on the rank that writes.

    Raises:
        ValueError: If `every_n_steps`, `start` or `end` leaves no step to read.
    """

    def __init__(
        self,
        every_n_steps: int = 1,
        quantities: Sequence[Quantity] | None = None,
        parameters: bool = False,
        *,
        start: int = 0,
        end: int | None = None,
        modules: Sequence[str] | None = None,
        activations: bool | Sequence[str] | None = None,
        budget: float | None = None,
        pathologies: bool | Sequence[Pathology] = False,
        actions: Sequence[Action] = (),
        dry_run: bool = True,
        trace: bool = False,
        live_gradcheck: int | None = None,
        functions: Sequence[Op] = (),
        scalars: Scalars = "all",
        sinks: Sequence[Sink] = (),
    ) -> None:
        # What can be refused before there is a model.
        EveryNSteps(every_n_steps, start, end)
        self.options: dict[str, Any] = {
            "every_n_steps": every_n_steps,
            "quantities": quantities,
            "start": start,
            "end": end,
            "modules": modules,
            "activations": activations,
            "budget": budget,
            "pathologies": pathologies,
            "actions": actions,
            "dry_run": dry_run,
            "trace": trace,
            "live_gradcheck": live_gradcheck,
            "functions": functions,
        }
        self.parameters = parameters
        self.scalars: Scalars = scalars
        self.sinks = tuple(sinks)
        self._monitor: Monitor | None = None
        self._files: list[Sink] = []

    @property
    def monitor(self) -> Monitor | None:
        """What watches the run that is going on, on a rank where something does."""
        return self._monitor

    def _begin(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        clock: Callable[[], int],
        scaler: GradScaler | None,
        folder: Path | None,
        writes: bool,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """Begin to watch, unless another rank does it for this one.

        Args:
            model: The model, inside all wrappers.
            optimizers: Its optimizers.
            clock: Tells the step.
            scaler: The GradScaler of the run.
            folder: Where files go; None writes none. While it cannot be written to the
                run goes on, and what is not written is counted in `monitor.lost`.
            writes: Whether this is the rank that writes.
            sinks: What is called with each snapshot, beside those of the user.
        """
        self._let_go()
        # Whole gradients are the same on all ranks; of shards each rank reads its own,
        # and what is done about a finding all of them do.
        sharded = any(hasattr(p, "full_tensor") for p in model.parameters())
        if not (writes or sharded or self.options["actions"]):
            return
        if writes and folder is not None:
            self._files.append(event_file(folder, self.parameters, self.scalars))
            if self.options["pathologies"]:
                self._files.append(Findings(folder))
        all_sinks = [*self._files, *sinks, *self.sinks] if writes else []
        self._monitor = Monitor(
            model, **self.options, clock=clock, scaler=scaler, sinks=all_sinks
        )
        for optimizer in optimizers:
            self._monitor.attach(optimizer)

    @staticmethod
    def _folder(index: int) -> str:
        """The name of the folder of one of the monitors of a trainer.

        Two that wrote to the same one would write the same tags, and what is read back
        would be of the one that came later.

        Args:
            index: Which of the monitors it is.
        """
        return f"gradlab_{index}" if index else "gradlab"

    def _should_stop(self) -> bool:
        """Whether an action asked for the end of the run, on any rank."""
        monitor, dist = self._monitor, torch.distributed
        if monitor is None or not self.options["actions"] or self.options["dry_run"]:
            return False
        if not (dist.is_available() and dist.is_initialized()):
            return monitor.should_stop
        # A rank that went on alone would wait for the others forever.
        device = next(monitor.model.parameters()).device
        stop = torch.tensor(float(monitor.should_stop), device=device)
        dist.all_reduce(stop, dist.ReduceOp.MAX)
        return stop.item() > 0

    def _let_go(self, error: BaseException | None = None) -> None:
        """Leave no hook behind and close the files; safe to call twice.

        Args:
            error: What ended the run.
        """
        if self._monitor is not None:
            self._monitor.detach()
        for sink in self._files:
            if isinstance(sink, Findings) and error is not None:
                sink.crashed(error)
        Sinks(self._files).close()
        self._monitor, self._files = None, []
