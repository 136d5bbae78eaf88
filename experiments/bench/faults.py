"""How well pathologies recognise planted faults, and how often they cry wolf.

Each network of `_zoo` is trained in healthy ways (`_controls`) and with each fault of
`_planted` that fits it; a `Watchdog` is shown the snapshots, and the published rules of
AUTOTRAINER and DeepDiagnosis (`_published_rules`) the same runs. For each half of the
networks, the one that thresholds were chosen on and the held-out one, two tables:

- of each fault: recall (a rule that names it spoke at all), first (the first rule to
  speak did), and the median of the steps until then;
- of each rule: recall where it would be right, precision (the share of the faulty runs
  it speaks in where what it says is true), and false alarms: healthy runs it speaks in,
  with the upper end of the rate's one-sided 95 % confidence interval.

It ends with status 1 if a gate is missed on the held-out half: false alarms of each
default pathology in at most 1 % of the runs, recall 0.9, first cause 0.85.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress

from gradlab.monitor import Watchdog
from gradlab.pathologies import Finding

from ._controls import CONTROLS, control
from ._planted import FAULTS, LATE
from ._published_rules import said
from ._scores import OURS, Run, missed_gates, of_faults, of_rules
from ._trace import Change, trace
from ._zoo import NETS, Net

STEPS = 60


class Job(NamedTuple):
    """A run to do, as plain numbers for another process.

    Attributes:
        net: The place of the network.
        fault: The place of the fault; None for a control.
        seed: Of weights and batches, and of the control which one.
    """

    net: int
    fault: int | None
    seed: int


def watch(net: Net, change: Change, seed: int, steps: int = STEPS) -> Run:
    """Train once, watched.

    Args:
        net: What to train.
        change: What to plant, or how to train.
        seed: Of weights and batches.
        steps: How many.
    """
    watchdog = Watchdog(outputs=[])
    looks, accuracies = [], []
    for seen in trace(net, seed, steps, change):
        for snapshot in seen.snapshots:
            watchdog(snapshot)
        looks += [] if seen.look is None else [seen.look]
        accuracies.append(seen.accuracy)
    if watchdog.failures:
        raise RuntimeError(f"a pathology failed on {net.name} with {change.name}")
    return Run(
        net.name,
        change.name,
        change in FAULTS,
        seed,
        net.held_out,
        sum(accuracies[-5:]) / 5,
        {OURS: _first_said(watchdog.findings), **said(looks)},
    )


def _first_said(findings: Sequence[Finding]) -> tuple[tuple[str, int], ...]:
    first: dict[str, int] = {}
    for finding in findings:
        first.setdefault(finding.code, finding.step)
    return tuple(first.items())


def jobs(seeds: int, controls: int, quick: bool) -> list[Job]:
    """Every run of the benchmark.

    Args:
        seeds: Of faulty runs.
        controls: Healthy runs of each network.
        quick: Whether every other network is left out.
    """
    chosen: list[Job] = []
    for n, net in list(enumerate(NETS))[:: 2 if quick else 1]:
        fitting = [f for f, fault in enumerate(FAULTS) if fault.fits(net)]
        chosen += [Job(n, fault, seed) for seed in range(seeds) for fault in fitting]
        # Other seeds than the faulty runs have.
        chosen += [Job(n, None, 1000 + seed) for seed in range(controls)]
    return chosen


def do(job: Job) -> Run:
    """Do one run, on one thread.

    Args:
        job: Which.
    """
    torch.set_num_threads(1)
    net = NETS[job.net]
    change = control(net, job.seed) if job.fault is None else FAULTS[job.fault]
    return watch(net, change, job.seed)


def main() -> int:
    """Train, watch, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="half the networks, one seed, 8 controls"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of each fault (3)")
    parser.add_argument(
        "--controls",
        type=int,
        default=37,
        help=f"healthy runs of each network (37), in {len(CONTROLS)} ways in turn",
    )
    parser.add_argument("--processes", type=int, default=2, help="at once (2)")
    parser.add_argument("--json", type=Path, help="write what was said of every run")
    arguments = parser.parse_args()
    seeds, controls = (
        (1, 8) if arguments.quick else (arguments.seeds, arguments.controls)
    )
    chosen = jobs(seeds, controls, arguments.quick)
    # A pipe has no width of its own, and the tables have many columns.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    begin = time.time()
    runs: list[Run] = []
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(arguments.processes, context) as pool,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("runs", total=len(chosen))
        for run in pool.map(do, chosen, chunksize=4):
            runs.append(run)
            progress.advance(task)
    for held_out, title in ((False, "tuning half"), (True, "held-out half")):
        half = [run for run in runs if run.held_out == held_out]
        names = list(dict.fromkeys(run.net for run in half))
        console.print(f"{title}: {', '.join(names)}")
        console.print(of_faults(half, title), of_rules(half, title))
    faulty = sum(run.faulty for run in runs)
    console.print(
        f"{faulty} faulty and {len(runs) - faulty} healthy runs of {STEPS} steps "
        f"(a late fault begins at step {LATE}), {time.time() - begin:.0f} s"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs]))
    missed = missed_gates(runs)
    for sentence in missed:
        console.print(f"gate missed: {sentence}", style="red")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
