"""The event file, as the real TensorBoard server tells it over HTTP."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gradlab import Monitor
from gradlab.quantities import GradNorm, GradRMS
from gradlab.tensorboard import EventFileWriter

SECONDS = 60


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Callable[[str], Any]]:
    """Start a server on a free port of the loopback; ask it, and end it."""
    log = folder.with_suffix(".log")
    with log.open("w") as out:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)),
                *("--host", "127.0.0.1", "--port", "0", *options),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONWARNINGS": ""},
        )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        address = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()))

        def ask(path: str) -> Any:
            with direct.open(f"{address[0]}/data/plugin/{path}", timeout=10) as answer:
                return json.load(answer)

        yield ask
    finally:
        server.kill()
        server.wait()


def until(ask: Callable[[], Any]) -> Any:
    """The first answer that is not empty."""
    end = time.monotonic() + SECONDS
    while not (answer := ask()):
        assert time.monotonic() < end, f"no answer in {SECONDS} s"
        time.sleep(0.1)
    return answer


@pytest.mark.parametrize("fast", ["auto", "false"])
def test_the_server_shows_each_layer_with_its_stage(tmp_path: Path, fast: str) -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    sink = EventFileWriter(tmp_path / "logs" / "run")
    quantities = [GradNorm(), GradRMS()]
    with Monitor(model, quantities=quantities, sinks=[sink]) as monitor:
        for step in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 1.0 + step)
            monitor.observe(step, "applied")
    with served(tmp_path / "logs", f"--load_fast={fast}") as ask:
        (run,) = until(lambda: ask("scalars/tags")).values()
        assert set(run) == {
            f"{name}/{row}"
            for name in ("grad_norm", "grad_rms")
            for row in ("total", "0", "1")
        }
        assert "Gradient stage: applied" in run["grad_norm/0"]["description"]
        points = until(lambda: ask("scalars/scalars?run=run&tag=grad_norm/1"))
    assert [(step, value) for _, step, value in points] == [
        (0, 1.0),
        (1, 2.0),
        (2, 3.0),
    ]
