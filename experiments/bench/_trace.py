"""One training run of the fault benchmark: what is changed, what is seen of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab import Monitor, Snapshot
from gradlab.quantities import (
    ClipCoefficient,
    GradCosine,
    GradNonFinite,
    GradNorm,
    GradRMS,
    GradZeros,
    OutputGradRMS,
    ParamNorm,
    Quantity,
    Saturation,
    UpdateRatio,
)

from ._data import BATCH
from ._net import Net
from ._published_rules import EPOCH, Look, Looker

QUANTITIES: tuple[Quantity, ...] = (
    GradNorm(),
    GradRMS(),
    GradNonFinite(),
    GradZeros(),
    ParamNorm(),
    GradCosine(),
    ClipCoefficient(),
    UpdateRatio(),
    OutputGradRMS(),
    Saturation(),
)


def _nothing(model: nn.Module) -> None:
    pass


def _nothing_at(model: nn.Module, step: int) -> None:
    pass


def _same_loss(step: int, loss: Tensor, output: Tensor) -> Tensor:
    return loss


def _same_batch(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, y


def _constant(step: int, steps: int) -> float:
    return 1.0


@dataclass(frozen=True)
class Change:
    """How a run differs from the plain training of its network.

    Attributes:
        name: Its name.
        plant: Changes the new model.
        at_step: Changes the model before a step.
        loss: Changes the loss, from the step, the loss and the output.
        grads: Changes the gradients before the optimizer sees them.
        data: Changes the batch, from the step, the inputs and the targets.
        learning_rate: What the learning rate is multiplied by.
        schedule: The same as a function of the step and the number of steps.
        clip: The norm to clip to, in units of the first step's norm; 0 for none.
        batch: The size of a batch.
        microbatches: How many make a step.
        repeats: Whether every batch is the first one.
        bfloat16: Whether the forward pass is under autocast.
    """

    name: str
    plant: Callable[[nn.Module], None] = _nothing
    at_step: Callable[[nn.Module, int], None] = _nothing_at
    loss: Callable[[int, Tensor, Tensor], Tensor] = _same_loss
    grads: Callable[[nn.Module], None] = _nothing
    data: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]] = _same_batch
    learning_rate: float = 1.0
    schedule: Callable[[int, int], float] = _constant
    clip: float = 0.0
    batch: int = BATCH
    microbatches: int = 1
    repeats: bool = False
    bfloat16: bool = False


@dataclass(frozen=True)
class Seen:
    """What was seen of a step.

    Attributes:
        snapshots: Those of the monitor, in the order of the step.
        look: What the published rules look at; at the end of an epoch only.
        accuracy: Of the step's last batch.
    """

    snapshots: tuple[Snapshot, ...]
    look: Look | None
    accuracy: float


def trace(net: Net, seed: int, steps: int, change: Change) -> Iterator[Seen]:
    """Train, and yield what is seen of each step.

    Args:
        net: What to train.
        seed: Of its weights and its batches.
        steps: How many.
        change: What is different.
    """
    torch.manual_seed(seed)
    maker = torch.Generator().manual_seed(seed + 1000)
    model = net.build()
    change.plant(model)
    optimizer = net.optimizer(model, change.learning_rate)
    full = optimizer.param_groups[0]["lr"]
    seen: list[Snapshot] = []
    looker, first_norm, accuracy = Looker(model, steps), 0.0, 0.0
    with Monitor(
        model, optimizer, quantities=QUANTITIES, activations=True, sinks=[seen.append]
    ) as monitor:
        batches = [net.batch(maker, change.batch)]
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = full * change.schedule(step, steps)
            change.at_step(model, step)
            optimizer.zero_grad()
            looker.looking = step % EPOCH == EPOCH - 1
            for _ in range(change.microbatches):
                if step and not change.repeats:
                    batches[0] = net.batch(maker, change.batch)
                x, y = change.data(step, *batches[0])
                with torch.autocast("cpu") if change.bfloat16 else _PLAIN:
                    output = model(x)
                loss = net.loss(output.float(), y)
                whole = change.loss(step, loss, output) / change.microbatches
                whole.backward()
                accuracy = net.accuracy(output, y)
                looker.heard(float(whole.detach()), accuracy)
            change.grads(model)
            if change.clip:
                monitor.before_clipping()
                limit = change.clip * first_norm if step else float("inf")
                norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
                first_norm = first_norm or float(norm)
            look = looker.look(step) if looker.looking else None
            optimizer.step()
            yield Seen(tuple(seen), look, accuracy)
            seen.clear()
    looker.remove()


_PLAIN = contextlib.nullcontext()
