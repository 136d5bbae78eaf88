"""Prints the conformance matrix: `make conformance`."""

import argparse
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from gradlab import OpInfo, layers
from gradlab._opinfo import make_tensors

from ._cells import CELLS
from ._drop_in import MODULE_CELLS
from ._matrix import matrix, outcome, torch_fails_too


def table(opinfos: Sequence[OpInfo]) -> tuple[Table, list[str], bool]:
    """The matrix, one row a claim and one column an op; what does not hold; if all."""
    todo: list[tuple[OpInfo, Any, str]] = [*matrix(opinfos)]
    todo += [
        (opinfo, given, cell)
        for opinfo in opinfos
        for given in opinfo.module_inputs(make_tensors(torch.float64))
        for cell in MODULE_CELLS
    ]
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    notes, good = [], True
    for opinfo, sample, cell in track(todo, "Checking", console=Console(stderr=True)):
        found = outcome(opinfo, sample, cell)
        counts[opinfo.name, cell][found.state] += 1
        if found.state == "holds":
            continue
        key = f"{cell}/{getattr(sample, 'name', 'module')}"
        reason = f"{found.state}: {found.why}".splitlines()[0]
        if found.state == "fails":
            reason = opinfo.known_failures.get(key, f"NEW, {reason}")
            excused = cell in CELLS and torch_fails_too(opinfo, sample, cell)
            good &= excused and key in opinfo.known_failures
            reason += "" if excused else " (torch's own op passes)"
        notes.append(f"{opinfo.name} {key}: {reason}")
    claim = Column("claim", no_wrap=True)
    grid = Table(claim, *(opinfo.name for opinfo in opinfos))
    for cell in (*CELLS, *MODULE_CELLS):
        grid.add_row(cell, *(_mark(counts[opinfo.name, cell]) for opinfo in opinfos))
    total = sum(counts.values(), Counter[str]())
    grid.caption = (
        f"{total['holds']} of {total.total()} hold, {total['not checked']} not "
        "checked; a number is its samples, - says that a check has no say"
    )
    return grid, notes, good


def _mark(count: Counter[str]) -> str:
    held, total = count["holds"], count.total()
    if count["fails"]:
        return f"[bold]{held} of {total}[/bold]"
    if not held:
        return "-"
    return f"{held} of {total}, -" if count["not checked"] else f"{held}"


def main() -> None:
    """Prints the conformance matrix; exits with 1 if a cell is worse than torch's."""
    parser = argparse.ArgumentParser("tests.conformance", description=__doc__)
    names = [opinfo.name for opinfo in layers.opinfos]
    parser.add_argument("ops", nargs="*", metavar="op", help=f"of {', '.join(names)}")
    ops = parser.parse_args().ops
    if unknown := set(ops) - set(names):
        parser.error(
            f"no op {', '.join(sorted(unknown))}; there are {', '.join(names)}"
        )
    chosen = [opinfo for opinfo in layers.opinfos if not ops or opinfo.name in ops]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    grid, notes, good = table(chosen)
    console = Console()
    console.width = max(console.width, 160)
    console.print(grid)
    for note in notes:
        print(note)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
