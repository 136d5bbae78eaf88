"""The `gradlab` command. Nothing here imports torch, so that help comes at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gradlab import __version__
from gradlab.command import UsageError, subcommands

EPILOG = """\
in Python:
  gradlab.gradcheck   is a backward right, where is it wrong, and why
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
        The exit status: 0 for success, 1 if a check fails, 2 for wrong usage.
    """
    parser = argparse.ArgumentParser(
        "gradlab",
        description="The workbench for backward passes: write, prove, watch, study.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gradlab {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    for add in subcommands:
        add(subparsers)
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return options.run(options)
    except UsageError as error:
        print(f"gradlab {options.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
