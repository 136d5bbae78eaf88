"""Prints the conformance matrix of watching: `python -m tests.monitor.settings`."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from ._properties import PROPERTIES, failures
from ._ranks import failures_of_ranks
from ._settings import SETTINGS

HEADER = {name: name.replace("_", "\n") for name in PROPERTIES}


def rows(names: list[str], folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The settings and what does not hold there, by property."""
    chosen = [s for s in SETTINGS if not names or any(n in s.name for n in names)]
    alone = [setting for setting in chosen if setting.ranks == 1]
    for setting in track(alone, "Training", console=Console(stderr=True)):
        yield setting.name, failures(setting, folder / setting.name)
    if len(alone) < len(chosen):
        together = {setting.name for setting in chosen if setting.ranks > 1}
        (folder / "ranks").mkdir()
        for name, found in failures_of_ranks(folder / "ranks").items():
            if name in together:
                yield name, found


def main() -> None:
    """Prints the matrix; exits with 1 if something does not hold."""
    parser = argparse.ArgumentParser("tests.monitor.settings", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of settings")
    names = parser.parse_args().names
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = dict(rows(names, Path(folder)))
    columns = (Column(text, justify="center") for text in HEADER.values())
    grid = Table(Column("setting", no_wrap=True), *columns)
    for name, wrong in found.items():
        grid.add_row(name, *("✗" if one in wrong else "✓" for one in PROPERTIES))
    console = Console()
    console.width = max(console.width, 130)
    console.print(grid)
    for name, wrong in found.items():
        for one, why in wrong.items():
            print(f"{name}, {one}: {why}")
    raise SystemExit(any(found.values()))


if __name__ == "__main__":
    main()
