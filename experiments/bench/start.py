"""How long a user waits for gradlab: its import, and its command line.

Each is a fresh process, taken in turn with its peer: `import torch` for the import, a
bare `python` for the command line. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from ._timing import interleave, ratio

IMPORT_GATE, HELP_GATE = 1.1, 0.5


def main() -> None:
    """Runs the benchmark; exits with 1 when a gate is missed."""
    parser = argparse.ArgumentParser("experiments.bench.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    rounds = parser.parse_args().rounds

    def run(*arguments: str) -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    everything = "import torch, gradlab; gradlab.layers, gradlab.optim, gradlab.Monitor"
    times = interleave(
        {
            "torch": lambda: run("-c", "import torch"),
            "gradlab": lambda: run("-c", everything),
            "python": lambda: run("-c", "pass"),
            "help": lambda: run("-m", "gradlab", "--help"),
        },
        repeats=rounds,
    )
    share = ratio(times["gradlab"], times["torch"])
    wait, bare = (statistics.median(times[name]) for name in ("help", "python"))
    print(f"import torch and gradlab / torch: {share:.3f} (at most {IMPORT_GATE})")
    print(f"gradlab --help: {wait:.3f} s (under {HELP_GATE}); bare python {bare:.3f} s")
    raise SystemExit(share > IMPORT_GATE or wait >= HELP_GATE)


if __name__ == "__main__":
    main()
