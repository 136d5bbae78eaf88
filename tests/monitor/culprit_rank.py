"""One rank whose batch may be bad, started by test_culprit.py.

Under DDP, under FSDP2, and with a model that communicates in its forward.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from gradlab.monitor import NonFiniteTrace


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Shared(nn.Module):
    """Averages over the ranks, as SyncBatchNorm does."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.detach().mean()
        dist.all_reduce(mean)
        return x + mean


def build(*more: nn.Module) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), Root(), *more)
    nn.init.ones_(model.get_parameter("0.weight"))
    return model


def found(model: nn.Module, batch: Tensor, traced: Any = None) -> tuple[str, str]:
    with NonFiniteTrace(model if traced is None else traced) as trace:
        model(batch).sum().backward()
        culprit = trace.find()
    return culprit.kind, str(culprit)


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    batch = torch.zeros(4, 3)
    wrong = torch.full((4, 3), math.nan)
    ddp: Any = DistributedDataParallel(build())
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    sharded: Any = fully_shard(build(), mesh=mesh)
    seen = {
        # Only rank 1 has a batch that makes infinity; the gradient of both is lost.
        "ddp": found(ddp, batch if rank else batch + 1),
        "inner": found(ddp, batch if rank else batch + 1, ddp.module),
        "fsdp": found(sharded, wrong if rank else batch + 1),
        "communicates": found(build(Shared()), wrong if rank else batch + 1),
    }
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
