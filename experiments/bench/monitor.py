"""What watching costs, against the gates it has to meet.

Parts, each in a process of its own, one thread, float32:

  small        what is added to a step of 4 to 5 ms with 150 small tensors: gradlab with
               few and many quantities, Lightning's grad_norm, histograms as wandb.watch
               makes them; everything at every step, into TensorBoard's files
  trainer      the same in a Lightning Trainer: log_dict(grad_norm(...)) as its users
               write it, and how many times cheaper gradlab is
  transformer  what is added to a step of a GPT of 5.9 million parameters
  scaling      how that grows from 100 to 10,000 tensors
  memory       what a watched run of 100,000 steps keeps in memory; nothing is timed, so
               it runs beside the others where there is a second processor
  disk         bytes of the event file for a row, quantity and step

Only ratios mean something elsewhere. A watched step and an unwatched one of an equal
network take turns; a figure is the median over rounds of such pairs, beside it are the
quartiles. Rounds go on until the 95 % interval of the median is clear of the gate, or
time is up: on a quiet machine all parts take under ten minutes. "CPU time" counts what
all threads of the process did, whatever else the machine was busy with.

Exits with 1 when a gate is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from ._monitor._row import Measuring, Part, Row
from .layers import ALLOCATORS

PARTS = {
    "small": "_steps",
    "trainer": "_trainer",
    "transformer": "_steps",
    "scaling": "_scaling",
    "memory": "_memory",
    "disk": "_disk",
}
"""The modules that the parts are functions of."""
BESIDE = {"memory"} if (os.cpu_count() or 1) > 1 else set[str]()
"""Nothing is timed there: with a second processor it runs beside the others."""
EXAMPLES = """
examples:
  python -m experiments.bench.monitor                       all gates
  python -m experiments.bench.monitor --quick               roughly, in a minute or two
  python -m experiments.bench.monitor --only small trainer  some parts
  LD_PRELOAD=libjemalloc.so.2 python -m experiments.bench.monitor    another malloc
"""


def main() -> None:
    """Measures, prints the tables, exits with 1 when a gate is missed."""
    parser = argparse.ArgumentParser(
        "python -m experiments.bench.monitor",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help="parts to measure"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds and steps, rough figures"
    )
    parser.add_argument(
        "--allocator",
        choices=ALLOCATORS,
        default="default",
        help="keeping: glibc gives nothing back to the system (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run(args.child, args.quick)
        return
    if args.json and not args.json.parent.is_dir():
        parser.error(f"--json is a file in a folder that exists, got {args.json}")
    settings = describe(args.allocator)
    parts: dict[str, Part] = {}
    names = args.only or [*PARTS]
    environment = ALLOCATORS[args.allocator]
    children: list[subprocess.Popen[str]] = []
    with (
        Progress(
            *Progress.get_default_columns(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        ) as progress,
        ThreadPoolExecutor() as pool,
    ):

        def measure(name: str) -> None:
            task = progress.add_task(name, total=1.0)
            children.append(start(name, args.quick, environment))
            for line in lines(name, children[-1]):
                if "title" in line:
                    rows = [Row(**row) for row in line["rows"]]
                    parts[name] = Part(line["title"], rows)
                else:
                    progress.update(task, completed=line["done"])
            progress.update(task, completed=1.0)

        try:
            beside = [pool.submit(measure, n) for n in names if n in BESIDE]
            for name in names:
                if name not in BESIDE:
                    measure(name)
            for one in beside:
                one.result()
        finally:
            for child in children:
                child.terminate()
    settings["load at the end"] = load()
    if args.json:
        figures = {
            name: {"title": part.title, "rows": [asdict(row) for row in part.rows]}
            for name, part in parts.items()
        }
        args.json.write_text(json.dumps({"settings": settings, "parts": figures}))
    raise SystemExit(report(settings, parts))


def run(name: str, quick: bool) -> None:
    """Measures one part and prints JSON lines: the progress, and what was found.

    Args:
        name: The part.
        quick: Whether a rough figure will do.
    """
    import torch

    torch.set_num_threads(1)
    module = import_module(f"._monitor.{PARTS[name]}", __package__)
    measure: Callable[[bool], Measuring] = getattr(module, name)
    measuring = measure(quick)
    while True:
        try:
            print(json.dumps({"done": next(measuring)}), flush=True)
        except StopIteration as end:
            title, rows = end.value
            found = {"title": title, "rows": [asdict(row) for row in rows]}
            print(json.dumps(found), flush=True)
            return


def start(name: str, quick: bool, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Begins one part in a process of its own.

    Args:
        name: The part.
        quick: Whether a rough figure will do.
        environment: What is added to the environment.
    """
    command = [sys.executable, "-m", "experiments.bench.monitor", "--child", name]
    return subprocess.Popen(
        command + ["--quick"] * quick,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def lines(name: str, child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What a part says until it ends.

    Args:
        name: The part.
        child: Its process.

    Yields:
        Each line.

    Raises:
        SystemExit: If it fails.
    """
    with child:
        yield from map(json.loads, child.stdout or ())
    if child.returncode:
        raise SystemExit(f"{name} failed with {child.returncode}")


def describe(allocator: str) -> dict[str, str]:
    """What the figures depend on.

    Args:
        allocator: The name of the allocator's settings.
    """
    from importlib.metadata import version

    preloaded = os.environ.get("LD_PRELOAD")
    return {
        "torch": version("torch"),
        "python": platform.python_version(),
        "threads": "1",
        "processors": str(os.cpu_count()),
        "allocator": f"{allocator} malloc" + (f" of {preloaded}" if preloaded else ""),
        "load at the start": load(),
    }


def load() -> str:
    """How many processes wanted a processor during the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def report(settings: dict[str, str], parts: dict[str, Part]) -> int:
    """Prints the tables.

    Args:
        settings: What the figures depend on.
        parts: What was found.

    Returns:
        0, or 1 when a gate is missed.
    """
    console = Console()
    console.width = max(console.width, 130)
    console.print(", ".join(f"{name} {value}" for name, value in settings.items()))
    for name in (name for name in PARTS if name in parts):
        part = parts[name]
        table = Table(title=f"{name}: {part.title}", title_justify="left")
        table.add_column("", no_wrap=True)
        for column in ("median", "quartiles", "gate"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("")
        for row in part.rows:
            table.add_row(*row.cells(), style=None if row.met else "red")
        console.print(table)
    gates = [
        (f"{name}: {row.name}", row.met)
        for name, part in parts.items()
        for row in part.rows
        if row.gate is not None
    ]
    missed = [name for name, met in gates if not met]
    print(f"gates: {len(gates) - len(missed)} of {len(gates)} met")
    if missed:
        print("missed: " + "; ".join(missed))
    return int(bool(missed))


if __name__ == "__main__":
    main()
