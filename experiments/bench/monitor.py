"""What watching costs a step: gradlab beside Lightning's grad_norm and histograms.

Every candidate trains the same network from the same start, a block of steps at a time,
in turn, so that a slow moment of the machine slows all of them; an overhead is the
median over the rounds of the ratio to the unwatched block of the same round. One
thread, float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import grad_norm
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from gradlab import Monitor, quantities
from gradlab.quantities import GradNorm
from gradlab.tensorboard import EventFileWriter

Watch = Callable[
    [nn.Module, torch.optim.Optimizer, Path, ExitStack], Callable[[int], None]
]
"""Begins to watch; returns what is called once a step, before the optimizer's."""


class Block(nn.Module):
    """A pre-norm transformer block, causal."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Adds attention, then the two-layer network."""
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, -1).transpose(1, 2)
            for t in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def small_tensors() -> tuple[nn.Module, Tensor]:
    """150 tensors, 75 layers of 64 units: a step takes some milliseconds."""
    layers = [m for _ in range(75) for m in (nn.Linear(64, 64), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(32, 64)


def transformer() -> tuple[nn.Module, Tensor]:
    """12 blocks of width 200, 5.8 million parameters, 147 tensors."""
    blocks = [Block(200, 4) for _ in range(12)]
    return nn.Sequential(*blocks, nn.LayerNorm(200)), torch.randn(4, 64, 200)


def _nothing(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, stack: ExitStack
) -> Callable[[int], None]:
    return lambda step: None


def _gradlab(chosen: Any, **options: Any) -> Watch:
    def watch(
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: Path,
        stack: ExitStack,
    ) -> Callable[[int], None]:
        sink = EventFileWriter(folder, parameters=True, **options)
        stack.enter_context(Monitor(model, optimizer, quantities=chosen, sinks=[sink]))
        return lambda step: None

    return watch


def _lightning(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, stack: ExitStack
) -> Callable[[int], None]:
    """What `self.log_dict(grad_norm(self, 2))` does with a TensorBoardLogger."""
    logger = TensorBoardLogger(folder)

    def log(step: int) -> None:
        norms = grad_norm(model, 2)
        logger.log_metrics({k: float(v) for k, v in norms.items()}, step=step)

    return log


def _histograms(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, stack: ExitStack
) -> Callable[[int], None]:
    """A histogram of every gradient, as wandb.watch makes them."""
    writer = SummaryWriter(folder)

    def log(step: int) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                writer.add_histogram(name, parameter.grad, step)

    return log


CANDIDATES: dict[str, Watch] = {
    "unwatched": _nothing,
    "gradlab, grad norm, tensor events": _gradlab([GradNorm()], scalars="off"),
    "gradlab, grad norm, scalars too": _gradlab([GradNorm()]),
    "gradlab, every quantity": _gradlab(quantities.quantities, scalars="off"),
    "Lightning grad_norm + log_dict": _lightning,
    "histograms": _histograms,
}
"""What is compared; each logs every tensor at every step."""


def measure(
    build: Callable[[], tuple[nn.Module, Tensor]], rounds: int, steps: int
) -> dict[str, list[float]]:
    """Seconds a step of every candidate, for each round.

    Args:
        build: Makes the network and a batch.
        rounds: How often each takes its turn.
        steps: Steps a turn; histograms take a tenth of it.
    """
    times: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        runs = {}
        for k, (name, watch) in enumerate(CANDIDATES.items()):
            torch.manual_seed(0)
            model, batch = build()
            optimizer = torch.optim.SGD(model.parameters(), 1e-3)
            log = watch(model, optimizer, Path(folder) / str(k), stack)
            runs[name] = model, batch, optimizer, log
        for turn in track(
            range(rounds + 1), build.__name__, console=Console(stderr=True)
        ):
            for name, (model, batch, optimizer, log) in runs.items():
                count = max(steps // 10, 1) if name == "histograms" else steps
                start = time.perf_counter()
                for i in range(count):
                    optimizer.zero_grad()
                    model(batch).square().mean().backward()
                    log(turn * steps + i)
                    optimizer.step()
                if turn:
                    times[name].append((time.perf_counter() - start) / count)
    return times


def main() -> None:
    """Prints the tables; exits with 1 when a gate is missed."""
    parser = argparse.ArgumentParser("experiments.bench.monitor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="default %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    console.width = max(console.width, 100)
    gates = {
        small_tensors: {
            "gradlab, grad norm, tensor events": 0.12,
            "gradlab, grad norm, scalars too": 0.25,
        },
        transformer: {
            "gradlab, grad norm, tensor events": 0.012,
            "gradlab, every quantity": 0.15,
        },
    }
    missed = []
    for build, limits in gates.items():
        times = measure(build, options.rounds, options.steps)
        title = f"{build.__name__}: every tensor at every step, 1 thread"
        table = Table("", "ms a step", "overhead", "gate", title=title)
        for name, rounds in times.items():
            pairs = zip(rounds, times["unwatched"], strict=True)
            overhead = statistics.median(a / b for a, b in pairs) - 1
            limit = limits.get(name)
            gate = "" if limit is None else f"{limit:.1%}"
            missed += [name] if limit is not None and overhead > limit else []
            table.add_row(
                name, f"{1e3 * statistics.median(rounds):.2f}", f"{overhead:.1%}", gate
            )
        console.print(table)
    print(f"gates: {'missed: ' + ', '.join(missed) if missed else 'met'}")
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
