"""The actions there are: warn, stop, skip the step, save a checkpoint."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ..pathologies import Finding
from ._action import Action, Run
from ._agreement import rank


@dataclass(frozen=True)
class Warn(Action):
    """Raises a `RuntimeWarning`, for whoever collects warnings."""

    @property
    def intent(self) -> str:
        """What it does."""
        return "warn"

    def __call__(self, run: Run, finding: Finding) -> str | None:
        """Warn.

        Args:
            run: The run.
            finding: What was found.
        """
        warnings.warn(str(finding), RuntimeWarning, stacklevel=2)
        return None


@dataclass(frozen=True)
class Stop(Action):
    """Ends the run: `Monitor.should_stop` is true from then on.

    A plain loop looks at it; Lightning's and Hugging Face's trainers are told.
    """

    @property
    def intent(self) -> str:
        """What it does."""
        return "stop the run"

    def __call__(self, run: Run, finding: Finding) -> str | None:
        """Ask for the end.

        Args:
            run: The run.
            finding: What was found.
        """
        run.stop = True
        return None


@dataclass(frozen=True)
class SkipStep(Action):
    """Skips the optimizer's step: it sees no gradient, and moves nothing.

    Each step that has the finding is skipped, not only the first; a step that is not
    read is not, so read every one. What the forward did stays done: of a batch with NaN
    the running statistics of a BatchNorm are NaN. `NonFinite(patience=1)` speaks at the
    first such step. The gradients are there again after the step.

    Numbers of gradients are the same on all ranks, so under DistributedDataParallel all
    of them skip if all of them watch with the same pathologies and actions.
    """

    repeats: ClassVar[bool] = True

    @property
    def intent(self) -> str:
        """What it does."""
        return "skip the step"

    def __call__(self, run: Run, finding: Finding) -> str | None:
        """Ask for the step to be skipped.

        Args:
            run: The run.
            finding: What was found.
        """
        if not run.skippable:
            return "the step was taken already, or this rank alone has seen it"
        run.skip = True
        return None


@dataclass(frozen=True)
class SaveCheckpoint(Action):
    """Saves the model, the optimizer and torch's random state at each finding.

    The file is `step<step>-<code>.pt`, what `torch.load` reads with
    `weights_only=True`: `model`, `optimizer`, `rng_state`, `step`, `finding`. Before
    the step that is about to be taken, if it was found then. Of several ranks the first
    saves; of a sharded model each its own part, in a file with `-rank<r>` behind it.

    Args:
        folder: Where to; it is made if missing.
    """

    folder: str | os.PathLike[str]

    @property
    def intent(self) -> str:
        """What it does."""
        return f"save a checkpoint in {os.fspath(self.folder)}"

    def __call__(self, run: Run, finding: Finding) -> str | None:
        """Save it, whole or not at all.

        Args:
            run: The run.
            finding: What was found.
        """
        sharded = any(hasattr(p, "full_tensor") for p in run.model.parameters())
        if rank() and not sharded:
            return "the first rank saves it"
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        part_of = f"-rank{rank()}" if sharded else ""
        path = folder / f"step{finding.step:08d}-{finding.code}{part_of}.pt"
        part = path.with_name(f"{path.name}.part")
        found = finding.to_dict()
        optimizer = run.optimizer
        try:
            torch.save(
                {
                    "model": run.model.state_dict(),
                    "optimizer": None if optimizer is None else optimizer.state_dict(),
                    "rng_state": torch.get_rng_state(),
                    "step": finding.step,
                    "finding": found,
                },
                part,
            )
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)
        return None
