"""The `gradlab` command. Nothing here imports torch, so that help comes at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gradlab import __version__

EPILOG = """\
in Python:
  gradlab.layers      layers with an explicit backward pass, drop-in for torch.nn
  gradlab.optim       update rules written as equations, drop-in for torch.optim
  gradlab.Function    the base class for a backward pass of your own
  gradlab.Monitor     gradient norms of any training loop
  gradlab.callbacks.GradientMonitor        the same for a Lightning Trainer
  gradlab.tensorboard.EventFileWriter      where they go; read_run reads them back

from a checkout of the repository:
  make demo                                train two networks and see what happens
  python -m experiments fit --help         train from a YAML config
  python -m experiments.bench.layers       speed and memory against torch.nn
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        The exit status: 0 for success; wrong usage exits with 2 on its own.
    """
    parser = argparse.ArgumentParser(
        "gradlab",
        description="The workbench for backward passes: write, prove, watch, study.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gradlab {__version__}")
    parser.parse_args(argv)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
