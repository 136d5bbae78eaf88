"""The settings of two processes: `python -m …settings._ranks <rank> <folder>`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from ._properties import failures
from ._run import Setting
from ._settings import SETTINGS

ROOT = Path(__file__).parents[3]


def failures_of_ranks(folder: Path) -> dict[str, dict[str, str]]:
    """What does not hold on either rank, by setting and property."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(rank), os.fspath(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=120)
            if rank.returncode:
                raise RuntimeError(errors)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    one, other = (json.loads((folder / f"{i}.json").read_text()) for i in range(2))
    return {name: other[name] | one[name] for name in one}


def of_two_ranks() -> list[Setting]:
    return [setting for setting in SETTINGS if setting.ranks == 2]


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    found = {
        setting.name: failures(setting, folder / f"{rank}-{index}")
        for index, setting in enumerate(of_two_ranks())
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
