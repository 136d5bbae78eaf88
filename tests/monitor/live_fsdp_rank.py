"""One rank of an FSDP2 run under live gradcheck, started by test_live_gradcheck.py."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from gradlab import LiveGradcheck, Snapshot, layers


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = nn.Sequential(layers.Linear(6, 16), layers.GELU(), layers.Linear(16, 3))
    fully_shard(model[0])
    fully_shard(model[2])
    fully_shard(model)
    optimizer = torch.optim.Adam(model.parameters())
    seen: list[Snapshot] = []
    with LiveGradcheck(model, optimizer, every_n_steps=1, sinks=[seen.append]) as live:
        for _ in range(2):
            optimizer.zero_grad()
            layers.mse_loss(model(torch.randn(16, 6)), torch.zeros(16, 3)).backward()
            optimizer.step()
    errors = [
        {row.name: s["gradcheck_error", row.name] for row in s.rows} for s in seen
    ]
    (folder / f"{rank}.json").write_text(json.dumps([errors, live.skipped]))
    dist.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
