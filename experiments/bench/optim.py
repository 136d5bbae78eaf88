"""One update of every optimizer against torch's default implementation of it.

Both run in one process, in turn, on one CPU thread, in float32, on the same parameters,
gradients and state. There are three sizes: many small tensors (150 of 2,048 elements),
a medium mix (24 of 256 to 512,000, as in a small network) and few large ones (4 of
2,000,000). A number is the median over the rounds of torch's time over gradlab's: above
1, gradlab is faster. The least of the three has to reach the gate. The last row is
torch against itself: how far the numbers are to be trusted.

Large temporaries cost page faults, and how many depends on what the allocator did
before. To measure without them, set MALLOC_MMAP_MAX_=0 and
MALLOC_TRIM_THRESHOLD_=4294967296 (glibc).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

import gradlab.optim

from ._timing import interleave, ratio

GATE = 0.95
SIZES = {
    "small": [2048] * 150,
    "medium": [512 * 512, 512, 256 * 512, 256, 512 * 1000, 1000] * 4,
    "large": [2_000_000] * 4,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 1e-4}),
    ("AdamW", {}),
]


def parameters(sizes: list[int]) -> list[Tensor]:
    """Makes parameters with gradients.

    Args:
        sizes: Their numbers of elements.

    Returns:
        The parameters.
    """
    params = [torch.randn(n).requires_grad_() for n in sizes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def measure(
    name: str, options: dict[str, Any], sizes: list[int], rounds: int, peer: Any
) -> tuple[float, float]:
    """Times one optimizer at one size.

    Args:
        name: The optimizer, as torch calls it.
        options: Its options.
        sizes: The numbers of elements of the parameters.
        rounds: How often to time it, on each of three sets of parameters.
        peer: Where to find the optimizer to measure against torch's.

    Returns:
        Torch's time over the peer's, and the peer's in seconds.
    """
    times: dict[str, list[float]] = {"torch": [], "peer": []}
    for _ in range(3):
        params = parameters(sizes)
        torchs, peers = (
            getattr(home, name)(params, **options) for home in (torch.optim, peer)
        )
        torchs.step()
        peers.state = torchs.state
        steps: dict[str, Callable[[], object]] = {
            "torch": torchs.step,
            "peer": peers.step,
        }
        for key, seconds in interleave(steps, rounds).items():
            times[key] += seconds
    return ratio(times["torch"], times["peer"]), statistics.median(times["peer"])


def main() -> None:
    """Prints the table; exits with 1 when an optimizer misses the gate."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.optim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = list(dict.fromkeys(name for name, _ in CASES))
    parser.add_argument(
        "only", nargs="*", help=f"optimizers to measure, of {', '.join(names)}"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        help="rounds on each of three sets of parameters (default: %(default)s)",
    )
    args = parser.parse_args()
    if unknown := set(args.only) - set(names):
        parser.error(f"no optimizer {', '.join(unknown)}; there are {', '.join(names)}")
    if args.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {args.rounds}")
    names = args.only or names
    cases = [(*case, gradlab.optim) for case in CASES if case[0] in names]

    torch.set_num_threads(1)
    table = Table(title="torch's time / gradlab's, one update, float32, 1 thread")
    table.add_column("optimizer", no_wrap=True)
    for size, elements in SIZES.items():
        header = f"{size}\n{len(elements)} tensors\n{sum(elements) / 1e6:.1f}M"
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(f"least\ngate {GATE}", justify="right", no_wrap=True)
    missed = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=(len(cases) + 1) * len(SIZES))
        for name, options, peer in [*cases, (cases[0][0], {}, torch.optim)]:
            label = "\n  ".join([name, *(f"{k}={v}" for k, v in options.items())])
            cells, ratios = [], []
            for size, elements in SIZES.items():
                progress.update(task, description=f"{name}, {size}")
                faster, seconds = measure(name, options, elements, args.rounds, peer)
                progress.advance(task)
                cells.append(f"{faster:.2f}x\n[dim]{seconds * 1e3:.2f} ms")
                ratios.append(faster)
            if peer is torch.optim:
                table.add_row(f"[dim]torch's {name}\nagainst itself", *cells)
                continue
            low = min(ratios) < GATE
            missed += [label] if low else []
            verdict = f"{min(ratios):.2f}x\n{'[red]missed' if low else 'passed'}"
            table.add_row(label, *cells, verdict, end_section=True)
    Console().print(table)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
