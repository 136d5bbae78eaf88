"""One rank of an FSDP2 run, started by test_distributed.py.

Shards are uneven (5 rows over 2 ranks), and one of them is empty (a bias of 1).
"""

import json
import os
import sys
import time
import warnings
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


def governed(model: nn.Module, data: Tensor, rank: int) -> dict[str, Any]:
    """The steps that are read within a budget, by ranks of unlike speed."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[Snapshot] = []

    def slow(snapshot: Snapshot) -> None:
        time.sleep(0.002 * rank)
        seen.append(snapshot)

    with Monitor(model, optimizer, budget=0.2, sinks=[slow]) as monitor:
        for step in range(40):
            optimizer.zero_grad()
            model(data[step % STEPS]).square().mean().backward()
            optimizer.step()
        failures = monitor.failures
    steps = [s.step for s in seen if "grad_norm" in s.quantities]
    return {"steps": steps, "failures": failures}


def disagreed(model: nn.Module, data: Tensor, rank: int) -> list[Any]:
    """Ranks that would read other steps: what is said, and how often it was read."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watch = Monitor(model, optimizer, every_n_steps=1 + rank, sinks=[seen.append])
        with watch as monitor:
            for batch in data:
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                monitor.before_clipping()
                optimizer.step()
    return [len(seen), *(str(one.message) for one in caught)]


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
    found |= governed(model, batches().chunk(2, dim=1)[rank], rank)
    found["disagreed"] = disagreed(model, batches().chunk(2, dim=1)[rank], rank)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
