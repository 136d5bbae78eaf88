"""One rank of a DistributedDataParallel run, started by test_microbatches.py."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from gradlab import Monitor, Snapshot
from gradlab.quantities import NoiseScale, RankGradNorm

QUANTITIES = NoiseScale(decay=0.0), RankGradNorm()


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def batches() -> Tensor:
    """`[steps, microbatches, samples, features]`."""
    maker = torch.Generator().manual_seed(1)
    return torch.randn(3, 4, 2, 3, generator=maker)


def watch(model: Any, inner: nn.Module, data: Tensor) -> list[dict[str, float]]:
    """Train with clipping; what the monitor saw."""
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    with Monitor(inner, optimizer, quantities=QUANTITIES, sinks=[seen.append]):
        for microbatches in data:
            optimizer.zero_grad()
            for i, batch in enumerate(microbatches):
                last = i == len(microbatches) - 1
                synced = last or not isinstance(model, DistributedDataParallel)
                with nullcontext() if synced else model.no_sync():
                    (model(batch).square().mean() / len(microbatches)).backward()
            nn.utils.clip_grad_norm_(inner.parameters(), 1e-3)
            optimizer.step()
    return [snapshot.scalars(parameters=True) for snapshot in seen]


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    found = {}
    for name, view in (("views", True), ("copies", False)):
        inner = build()
        model = DistributedDataParallel(inner, gradient_as_bucket_view=view)
        halves = batches().chunk(2, dim=1)
        found[f"two microbatches, {name}"] = watch(model, inner, halves[rank])
        inner = build()
        model = DistributedDataParallel(inner, gradient_as_bucket_view=view)
        ones = batches()[:, rank : rank + 1]
        found[f"one microbatch, {name}"] = watch(model, inner, ones)
    inner = build()
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for module in (inner[0], inner[2], inner):
        fully_shard(module, mesh=mesh)
    found["shards"] = watch(inner, inner, batches()[:, :, rank : rank + 1])
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
