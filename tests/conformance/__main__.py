"""Prints the conformance matrix: `make conformance`."""

import argparse
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gradlab import OpInfo, layers
from gradlab._opinfo import make_tensors

from ._cells import CELLS
from ._matrix import failure, matrix, torch_fails_too
from ._module_cells import MODULE_CELLS


def table(opinfos: Sequence[OpInfo]) -> tuple[Table, list[str]]:
    """The matrix, one row a cell and one column an op, and what does not hold."""
    todo: list[tuple[OpInfo, Any, str]] = [*matrix(opinfos)]
    todo += [
        (opinfo, given, cell)
        for opinfo in opinfos
        for given in opinfo.module_inputs(make_tensors(torch.float64))
        for cell in MODULE_CELLS
    ]
    held: Counter[tuple[str, str]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    notes = []
    for opinfo, sample, cell in track(todo, "Checking", console=Console(stderr=True)):
        place = opinfo.name, cell
        asked[place] += 1
        raised = failure(opinfo, sample, cell)
        held[place] += raised is None
        if raised is not None:
            key = f"{cell}/{getattr(sample, 'name', 'module')}"
            reason = opinfo.known_failures.get(key, f"NEW: {raised}".splitlines()[0])
            if cell in CELLS and not torch_fails_too(opinfo, sample, cell):
                reason += " (torch's own op passes)"
            notes.append(f"{opinfo.name} {key}: {reason}")
    grid = Table("claim", *(opinfo.name for opinfo in opinfos))
    for cell in (*CELLS, *MODULE_CELLS):
        counts = [(held[o.name, cell], asked[o.name, cell]) for o in opinfos]
        marks = [f"{a}" if a == b else f"[bold]{a} of {b}[/bold]" for a, b in counts]
        grid.add_row(cell, *marks)
    grid.caption = f"{held.total()} of {asked.total()} hold; a number is its samples"
    return grid, notes


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
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    grid, notes = table(chosen)
    console = Console()
    console.width = max(console.width, 150)
    console.print(grid)
    for note in notes:
        print(note)
    raise SystemExit(any("passes)" in note or "NEW" in note for note in notes))


if __name__ == "__main__":
    main()
