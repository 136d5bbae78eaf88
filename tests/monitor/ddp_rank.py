"""One rank of a DistributedDataParallel run, started by test_distributed.py."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradlab import Monitor, Snapshot

STEPS, BATCH = 3, 8


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def batches() -> Tensor:
    maker = torch.Generator().manual_seed(1)
    return torch.randn(STEPS, BATCH, 3, generator=maker)


def watch(model: nn.Module, inner: nn.Module, data: Tensor) -> list[dict[str, float]]:
    """Train, and return what the monitor saw."""
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    with Monitor(inner, optimizer, sinks=[seen.append]):
        for batch in data:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    return [snapshot.scalars(parameters=True) for snapshot in seen]


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    inner = build()
    model: Any = DistributedDataParallel(inner)
    seen = watch(model, inner, batches().chunk(2, dim=1)[rank])
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
