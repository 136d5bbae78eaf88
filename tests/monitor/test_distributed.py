"""Two real processes: DDP's reduced gradients, FSDP2's shards, tensor parallelism."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Replicate,
    Shard,
    distribute_tensor,
)

from gradlab import Monitor, quantities

HERE = Path(__file__).parent


def two_ranks(script: str, folder: Path) -> tuple[Any, Any]:
    """What both ranks of a script wrote."""
    root = os.fspath(HERE.parents[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, os.fspath(HERE / script), str(rank), os.fspath(folder)],
            env={**os.environ, "PYTHONPATH": root},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=120)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    one, other = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return one, other


def loaded(script: str) -> Any:
    """The script as a module, to run the same without ranks."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, HERE / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shards_of_fsdp2_have_the_numbers_of_the_whole(tmp_path: Path) -> None:
    one, other = two_ranks("fsdp_rank.py", tmp_path)
    disagreed = one.pop("disagreed"), other.pop("disagreed")
    assert one == other
    # Ranks of unlike speed read the same steps, as often as the slower one may.
    assert one["failures"] == 0
    assert one["steps"][0] == 0
    assert 1 < len(one["steps"]) < 40
    # Ranks that were told otherwise read nothing, and say so once.
    for seen, *messages in disagreed:
        assert seen == 0
        (message,) = messages
        assert "every rank reads the same quantities at the same steps" in message
        assert "every_n_steps=" in message
    single = loaded("fsdp_rank.py")
    alone = single.watch(single.build(), single.batches())
    for mine, whole in zip(one["seen"], alone["seen"], strict=True):
        assert set(mine) == set(whole)
        assert mine == pytest.approx(whole, rel=1e-5)
    for mine, clipping in zip(one["seen"], one["totals"], strict=True):
        assert mine["grad_norm/total"] == pytest.approx(clipping["total"], rel=1e-6)


@contextmanager
def mesh_of_one(*names: str) -> Iterator[DeviceMesh]:
    store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,) * len(names), mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "placements",
    [[Shard(0)], [Replicate()], [Partial()], [Replicate(), Shard(1)]],
    ids=str,
)
def test_every_placement_is_read(placements: list[Any]) -> None:
    names = ("a", "b")[: len(placements)]
    with mesh_of_one(*names) as mesh:
        model = nn.Linear(2, 2, bias=False)
        kept = [Replicate() if p.is_partial() else p for p in placements]
        model.weight = nn.Parameter(distribute_tensor(model.weight, mesh, kept))
        grad = torch.tensor([[3.0, math.nan], [0.0, 4.0]])
        model.weight.grad = DTensor.from_local(grad, mesh, placements)
        found = Monitor(model, quantities=quantities.quantities).observe(0, "raw")
    assert math.isnan(found["grad_max", "total"])
    assert found["grad_nonfinite", "total"] == 1
    assert found["grad_zeros", "total"] == 0.25
