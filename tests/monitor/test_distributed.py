import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from gradlab import Monitor

SCRIPT = Path(__file__).with_name("ddp_rank.py")


def test_every_rank_of_ddp_reads_the_reduced_gradient(tmp_path: Path) -> None:
    root = os.fspath(SCRIPT.parents[2])
    ranks = [
        subprocess.Popen(
            [sys.executable, os.fspath(SCRIPT), str(rank), os.fspath(tmp_path)],
            env={**os.environ, "PYTHONPATH": root},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=90)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    one, other = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    assert one == other

    spec = importlib.util.spec_from_file_location("ddp_rank", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    single = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(single)
    model = single.build()
    for mine, alone in zip(
        one, single.watch(model, model, single.batches()), strict=True
    ):
        assert mine == pytest.approx(alone, rel=1e-5)


def test_a_sharded_gradient_is_refused() -> None:
    store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model = nn.Linear(2, 2, bias=False)
        model.weight = nn.Parameter(distribute_tensor(model.weight, mesh, [Shard(0)]))
        model.weight.grad = torch.ones_like(model.weight)
        with pytest.raises(NotImplementedError, match=r"\(DTensor\) for weight"):
            Monitor(model).observe(0, "raw")
    finally:
        dist.destroy_process_group()
