"""The settings: one row of the matrix each."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW, Optimizer

from . import _loops as loops, _models as models
from ._run import Run, Setting

Optimizers = Callable[[nn.Module], list[Optimizer]]


def sgd(model: nn.Module) -> list[Optimizer]:
    return [SGD(model.parameters(), lr=0.05, momentum=0.9)]


def plain_sgd(model: nn.Module) -> list[Optimizer]:
    return [SGD(model.parameters(), lr=0.05)]


def of(kind: type[SGD | Adam | AdamW], **options: Any) -> Optimizers:
    return lambda model: [kind(model.parameters(), lr=0.01, **options)]


def lbfgs(model: nn.Module) -> list[Optimizer]:
    return [torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=2)]


def one_and_two(model: Any) -> list[Optimizer]:
    return [SGD(model.one.parameters(), lr=0.05), Adam(model.two.parameters(), 0.01)]


def all_but_one(model: Any) -> list[Optimizer]:
    frozen = set(model[2].parameters())
    return [SGD([p for p in model.parameters() if p not in frozen], lr=0.05)]


def compiled(model: nn.Module) -> nn.Module:
    # A monitor's hooks are found while the model is traced.
    torch.compiler.reset()
    return torch.compile(model, backend="eager")  # pyright: ignore[reportReturnType]


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp() -> nn.Module:
    """Shards of 4 and 4, of 3 and 2 rows, and of a bias that only one rank has."""
    model: Any = models.mlp()
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (model[2], model):
        fully_shard(module, mesh=mesh)
    return model


def setting(
    name: str,
    loop: Callable[[Run], None] = loops.plain,
    model: Callable[[], nn.Module] = models.mlp,
    optimizers: Optimizers = sgd,
    **options: Any,
) -> Setting:
    return Setting(name, loop, model, optimizers, **options)


SKIPS = (3, 4, 60)
"""Batches at which the loss overflows."""

SCALED: dict[str, Any] = {"scale": 1024.0}

SETTINGS = (
    setting("float32"),
    setting("float32, every third step", every=3),
    setting("bf16 autocast", loops.autocast),
    # Under GradScaler.
    setting("foreach, scaled", loops.scaled(), **SCALED),
    setting("fused, scaled", loops.scaled(), optimizers=of(Adam, fused=True), **SCALED),
    setting("foreach, skipped steps", loops.scaled(SKIPS), **SCALED),
    setting(
        "fused, skipped steps",
        loops.scaled(SKIPS),
        optimizers=of(Adam, fused=True),
        **SCALED,
    ),
    setting(
        "foreach, skipped steps, zeroed gradients",
        loops.scaled(SKIPS, set_to_none=False),
        **SCALED,
    ),
    setting(
        "fused, skipped steps, zeroed gradients",
        loops.scaled(SKIPS, set_to_none=False),
        optimizers=of(SGD, fused=True),
        **SCALED,
    ),
    setting(
        "fused, unscaled and clipped",
        loops.scaled(unscale=True),
        optimizers=of(AdamW, fused=True),
        **SCALED,
    ),
    # Steps of other forms.
    setting("accumulation, partial last window", loops.accumulated),
    setting("norm clipping", loops.clipped_by_norm),
    setting("value clipping", loops.clipped_by_value),
    setting("two optimizers", loops.both, models.Pair, one_and_two),
    setting("manual, in turns", loops.in_turns, models.Pair, one_and_two),
    setting("gradient penalty", loops.penalized),
    setting("closure of LBFGS", loops.with_closure, optimizers=lbfgs),
    setting("closure of SGD", loops.with_closure),
    setting("evaluation between steps", loops.evaluated),
    setting("resume from a checkpoint", loops.resumed),
    # Parameters.
    setting("tied", model=models.Tied),
    setting("called twice", model=models.Twice),
    setting("frozen", model=models.frozen),
    setting("unfrozen in mid-run", loops.unfrozen, optimizers=all_but_one),
    setting("unused", model=models.Unused, optimizers=of(Adam)),
    setting("sparse", model=models.SparseEmbedding, optimizers=plain_sgd),
    setting("complex", model=models.Complex),
    # Outputs.
    setting("checkpointed", model=models.Checkpointed),
    setting("checkpointed, reentrant", model=models.CheckpointedReentrant),
    setting("in place", model=models.in_place),
    setting("dict output", model=models.dict_output),
    setting("dataclass output", model=models.dataclass_output),
    setting("recurrent, attention", model=models.Attention, optimizers=of(AdamW)),
    setting("convolution, batch norm, dropout", model=models.random_and_running),
    setting("gradlab's layers", model=models.of_gradlab),
    setting("compiled after watching began", forward=compiled),
    setting(
        "compiled before",
        model=lambda: compiled(models.mlp()),
        says="compiled before the monitor was made",
        numbers=False,
    ),
    # Two processes.
    setting("DDP", forward=ddp, ranks=2),
    setting("DDP, accumulation", loops.without_sync, forward=ddp, ranks=2),
    setting("FSDP2, uneven and empty shards", loops.clipped_by_norm, fsdp, ranks=2),
    setting("FSDP2, accumulation", loops.without_sync, fsdp, ranks=2),
)
