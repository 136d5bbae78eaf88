"""How well pathologies recognise planted faults, and how often they cry wolf.

`python -m experiments.bench.faults` trains each network of `_zoo` healthily and with
each fault of `_planted` that fits it, shows a `Watchdog` the snapshots, and prints for
both halves of the networks (thresholds were chosen on the tuning half):

- of each fault: recall (a right code was said at all), first (the first code said was
  right), and the median of the steps until it was said;
- of each pathology: findings, precision (of its findings in faulty runs, those that
  name the fault), and the false-positive rate: the share of healthy runs it speaks in.

Missing so far: AUTOTRAINER's and DeepDiagnosis's rules on the same traces, faults that
are mild, networks that are large, and controls enough to bound a rate of 1 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gradlab.monitor import Watchdog
from gradlab.pathologies import Finding, pathologies

from ._planted import FAULTS, Fault, trace
from ._zoo import NETS, Net

STEPS, QUICK_STEPS = 60, 40


@dataclass(frozen=True)
class Run:
    """One run and what was said of it.

    Attributes:
        net: Its network.
        fault: The fault that was planted; empty for a control.
        seed: Its seed.
        held_out: Whether the network is of the held-out half.
        said: Codes in the order in which they were said, with their steps.
    """

    net: str
    fault: str
    seed: int
    held_out: bool
    said: tuple[tuple[str, int], ...]


def watch(net: Net, fault: Fault | None, seed: int, steps: int = STEPS) -> Run:
    """Train once, watched.

    Args:
        net: What to train.
        fault: What to plant; None for a control.
        seed: Of weights and batches.
        steps: How many.
    """
    watchdog = Watchdog(outputs=[])
    for snapshot in trace(net, seed, steps, fault):
        watchdog(snapshot)
    assert not watchdog.failures
    said: Iterable[Finding] = watchdog.findings
    return Run(
        net.name,
        fault.name if fault else "",
        seed,
        net.held_out,
        tuple((finding.code, finding.step) for finding in said),
    )


def of_faults(runs: Sequence[Run]) -> list[str]:
    """The table of faults as lines.

    Args:
        runs: The runs of one half.
    """
    lines = [f"  {'fault':<22}{'runs':>5}{'recall':>8}{'first':>7}{'steps':>7}"]
    hits, firsts, total = 0, 0, 0
    for fault in FAULTS:
        mine = [run for run in runs if run.fault == fault.name]
        if not mine:
            continue
        right = [[s for c, s in run.said if c in fault.right] for run in mine]
        until = [steps[0] - fault.seen_at for steps in right if steps]
        first = sum(bool(run.said) and run.said[0][0] in fault.right for run in mine)
        hits, firsts = hits + len(until), firsts + first
        total += len(mine)
        wait = f"{statistics.median(until):.0f}" if until else "-"
        lines.append(
            f"  {fault.name:<22}{len(mine):>5}{len(until) / len(mine):>8.2f}"
            f"{first / len(mine):>7.2f}{wait:>7}"
        )
    lines.append(f"  {'all':<22}{total:>5}{hits / total:>8.2f}{firsts / total:>7.2f}")
    return lines


def of_pathologies(runs: Sequence[Run]) -> list[str]:
    """The table of pathologies as lines.

    Args:
        runs: The runs of one half.
    """
    healthy = [run for run in runs if not run.fault]
    right = {fault.name: fault.right for fault in FAULTS}
    lines = [f"  {'pathology':<22}{'runs':>5}{'precision':>11}{'false positives':>17}"]
    for code in (pathology.code for pathology in pathologies):
        spoke = [run for run in runs if run.fault and code in dict(run.said)]
        wrong = sum(code in dict(run.said) for run in healthy)
        good = sum(code in right[run.fault] for run in spoke)
        precision = f"{good / len(spoke):.2f}" if spoke else "-"
        rate = f"{wrong} of {len(healthy)}"
        lines.append(f"  {code:<22}{len(spoke):>5}{precision:>11}{rate:>17}")
    wrong = sum(bool(run.said) for run in healthy)
    lines.append(f"  {'any':<22}{'':>5}{'':>11}{f'{wrong} of {len(healthy)}':>17}")
    return lines


def main() -> None:
    """Train, watch, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, fewer steps")
    parser.add_argument(
        "--controls", type=int, default=0, help="seeds of healthy runs, if more"
    )
    parser.add_argument("--json", type=Path, help="write what was said of every run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begin, runs = time.perf_counter(), list[Run]()
    steps = QUICK_STEPS if arguments.quick else STEPS
    seeds = 1 if arguments.quick else 3
    for seed in range(max(seeds, arguments.controls)):
        for net in NETS:
            faults = FAULTS if seed < seeds else ()
            fitting = [fault for fault in faults if fault.fits(net)]
            runs += [watch(net, fault, seed, steps) for fault in (None, *fitting)]
    for held_out in (False, True):
        half = [run for run in runs if run.held_out == held_out]
        names = sorted({run.net for run in half})
        print(f"{'held-out' if held_out else 'tuning'} half: {', '.join(names)}")
        print("\n".join([*of_faults(half), "", *of_pathologies(half), ""]))
    print(f"{len(runs)} runs of {steps} steps, {time.perf_counter() - begin:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs]))


if __name__ == "__main__":
    main()
