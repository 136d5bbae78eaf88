"""Forward and backward of every op against torch's own: time and saved bytes.

Both run in one process, in turn, on one thread, in float32; a time ratio is the median
over the rounds of torch's time over gradlab's: above 1, gradlab is faster. Saved bytes
are the storages that autograd keeps for the backward and that are neither an input nor
an output. Everything runs twice: with the default allocator, where each large tensor
costs page faults, and with one that keeps its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

GATE = 0.9
ALLOCATORS = {
    "default": {},
    "keeping": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)},
}
"""Environment of each run; the second makes glibc keep what is freed."""


def measure(only: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Measures every op of `gradlab.layers` at its three sizes.

    Args:
        only: Names of ops; all of them when empty.
        seconds: Time for each row.

    Yields:
        One row for each op and size.
    """
    import torch

    from gradlab._opinfo import make_tensors
    from gradlab.layers import opinfos

    from ._timing import interleave, ratio

    torch.set_num_threads(1)
    for opinfo in opinfos:
        if only and opinfo.name not in only:
            continue
        for sample in opinfo.bench_inputs(make_tensors(torch.float32)):
            output = sample.bind(opinfo.op)(*sample.tensors)[0]
            grad = torch.randn_like(output)

            def step(
                op: Callable[..., Any], sample: Any = sample, v: Any = grad
            ) -> Any:
                y = sample.bind(op)(*sample.tensors)[0]
                return torch.autograd.grad(y, sample.tensors, v)

            candidates = {
                "torch": lambda step=step, op=opinfo.torch_op: step(op),
                "gradlab": lambda step=step, op=opinfo.op: step(op),
            }
            times = interleave(candidates, repeats=100, seconds=seconds)
            yield {
                "op": opinfo.name,
                "size": sample.name,
                "ms": 1e3 * min(times["gradlab"]),
                "time": ratio(times["torch"], times["gradlab"]),
                "torch_saves": saved_bytes(opinfo.torch_op, sample),
                "gradlab_saves": saved_bytes(opinfo.op, sample),
            }


def saved_bytes(op: Callable[..., Any], sample: Any) -> int:
    """Bytes kept for the backward that are neither an input nor an output.

    Args:
        op: The op.
        sample: What to call it with.

    Returns:
        The size of those storages, each counted once.
    """
    import torch

    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = sample.bind(op)(*sample.tensors)
    given = [*sample.args, *sample.kwargs.values(), *outputs]
    for tensor in given:
        if isinstance(tensor, torch.Tensor):
            kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def main() -> None:
    """Runs the benchmark and prints the table; exits with 1 when a gate is missed."""
    parser = argparse.ArgumentParser("experiments.bench.layers", description=__doc__)
    parser.add_argument("only", nargs="*", help="ops to measure; default: all of them")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="time for each row (%(default)s)"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        for row in measure(args.only, args.seconds):
            print(json.dumps(row), flush=True)
        return
    from gradlab.layers import opinfos

    names = [opinfo.name for opinfo in opinfos]
    if unknown := set(args.only) - set(names):
        parser.error(
            f"no op {', '.join(sorted(unknown))}; there are {', '.join(names)}"
        )
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    with Progress(console=Console(stderr=True)) as progress:
        for allocator, environment in ALLOCATORS.items():
            task = progress.add_task(f"{allocator} allocator", total=None)
            command = [sys.executable, "-m", "experiments.bench.layers", "--child"]
            command += ["--seconds", str(args.seconds), *args.only]
            with subprocess.Popen(
                command, env=os.environ | environment, stdout=subprocess.PIPE, text=True
            ) as child:
                for line in child.stdout or ():
                    row = json.loads(line)
                    merged = rows.setdefault((row["op"], row["size"]), row)
                    merged[allocator] = row["time"]
                    text = f"{allocator} allocator: {row['op']} {row['size']}"
                    progress.update(task, advance=1, description=text)
            if child.returncode:
                raise SystemExit(child.returncode)
    raise SystemExit(report(list(rows.values())))


def report(rows: list[dict[str, Any]]) -> int:
    """Prints the table.

    Args:
        rows: One for each op and size, the largest size of an op last.

    Returns:
        0, or 1 when an op misses the gate at its largest size.
    """
    largest = {row["op"]: row for row in rows}
    table = Table(title="forward + backward, float32, 1 thread")
    for name in ("op", "size"):
        table.add_column(name, no_wrap=True)
    for name in (
        "ms",
        *(f"time, {a}" for a in ALLOCATORS),
        "saved by torch",
        "gradlab",
    ):
        table.add_column(name, justify="right")
    missed = []
    for row in rows:
        last = largest[row["op"]] is row
        low = last and min(row[a] for a in ALLOCATORS) < GATE
        missed += [row["op"]] if low else []
        times = (f"{row[a]:.2f}x" for a in ALLOCATORS)
        kept = (f"{row[k] / 2**20:.2f} MiB" for k in ("torch_saves", "gradlab_saves"))
        cells = row["op"], row["size"], f"{row['ms']:.3f}", *times, *kept
        table.add_row(*cells, style="red" if low else None, end_section=last)
    console = Console()
    console.width = max(console.width, 100)
    console.print(table)
    verdict = f"missed by {', '.join(missed)}" if missed else "met by all"
    print(f"gate: at least {GATE} on time at the largest size: {verdict}")
    return int(bool(missed))


if __name__ == "__main__":
    main()
