"""One rank of an FSDP2 run, started by test_distributed.py.

Shards are uneven (5 rows over 2 ranks), and one of them is empty (a bias of 1).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from gradlab import Monitor, Snapshot, quantities

STEPS, BATCH = 3, 8


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def batches() -> Tensor:
    maker = torch.Generator().manual_seed(1)
    return torch.randn(STEPS, BATCH, 3, generator=maker)


def watch(model: nn.Module, data: Tensor) -> dict[str, list[dict[str, float]]]:
    """Train with clipping; what the monitor saw before it and clipping's own total."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    totals = []
    total: Any
    with Monitor(model, quantities=quantities.quantities, sinks=[seen.append]) as watch:
        for step, batch in enumerate(data):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            watch.observe(step, "reduced")
            total = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if hasattr(total, "full_tensor"):
                total = total.full_tensor()
            totals.append({"total": total.item()})
            optimizer.step()
    return {"seen": [s.scalars(parameters=True) for s in seen], "totals": totals}


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    model = build()
    for module in (*model, model):
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)
    found = watch(model, batches().chunk(2, dim=1)[rank])
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
