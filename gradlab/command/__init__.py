"""The subcommands of `gradlab`: to add one, its file and its line here.

Nothing here imports torch before a subcommand runs, so that help comes at once.
"""

from ._check import add_check as add_check
from ._named import UsageError as UsageError

subcommands = (add_check,)
"""Each adds its parser, with a default `run`, from parsed arguments to exit status."""
