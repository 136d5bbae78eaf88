"""`gradlab check`: checks one function, or every op of a module."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from typing import Any

from ._inputs import inputs_named, random_inputs
from ._named import UsageError, named
from ._progress import show, shown_progress
from ._target import checkable

EPILOG = """\
Prints the report on stdout. Exit status: 0 all is well, 1 it is not, 2 wrong usage.

examples:
  gradlab check my_layers.py:Swish.apply --shape 3x4
  gradlab check my_package.losses:focal --inputs tests.data:batch \\
      --reference my_package.losses:focal_reference --level contract
"""


def add_check(subparsers: Any) -> None:
    """Adds the parser of `gradlab check`.

    Args:
        subparsers: What `ArgumentParser.add_subparsers` returned.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "check",
        help="is a backward right, where is it wrong, and why",
        description="Checks the backward pass of a function: is it right, where is it "
        "wrong, and why.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "target",
        metavar="package.module:name",
        help="a function, autograd.Function or Module; file.py:name works too. "
        "package.module alone: every op of its `opinfos`, as in gradlab.layers",
    )
    where = parser.add_argument_group("inputs, one of")
    where.add_argument(
        "--inputs",
        metavar="module:name",
        help="a tensor, tuple or dict of arguments, or a callable that returns one",
    )
    where.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="3x4",
        help="a random tensor of this shape; once an argument; `scalar` has no axes",
    )
    what = parser.add_argument_group("what to check")
    what.add_argument(
        "--dtype",
        action="append",
        default=[],
        help="of the random tensors, for all or once a shape; default float64. Floats "
        "require grad, integers are 0 and 1",
    )
    what.add_argument("--seed", type=int, default=0, help="of all random numbers")
    what.add_argument(
        "--reference",
        metavar="module:name",
        help="a differentiable function of the same arguments to hold it against",
    )
    what.add_argument(
        "--level",
        choices=("value", "contract", "full"),
        default="full",
        help="each includes the ones before it; default full",
    )
    what.add_argument(
        "--declared",
        action="append",
        default=[],
        choices=("surrogate", "approximate"),
        help="the gradient is meant to be this, and not the derivative",
    )
    what.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="check it under torch.compile too; on at level full (for a module of ops, "
        "at the first sample of each)",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--json", action="store_true", help="print the report as JSON")
    how.add_argument(
        "--no-isolate",
        dest="isolate",
        action="store_false",
        help="check in this process: a debugger works, a crash ends it",
    )
    how.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="stop the check after so long; not with --no-isolate; default 300",
    )
    how.add_argument("--memory", type=float, metavar="GIB", help="limit; default none")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs `gradlab check`.

    Args:
        options: The parsed arguments.

    Returns:
        0 if all that was checked is as it should be, else 1.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints
        from ._ops import check_ops, ops_in

        with shown_progress() as progress:
            progress(f"importing {options.target}")
            target = named(options.target)
            given = options.inputs or options.shape
            if (ops := ops_in(target, bool(given))) is not None:
                _refuse_with_ops(options)
                return check_ops(ops, options, _keywords(options), progress, stdout)
            report = _checked(target, options, progress)
    if options.json:
        print(report.to_json(), file=stdout)
    else:
        show(report, stdout)
    return 0 if report.ok else 1


def _checked(target: Any, options: argparse.Namespace, progress: Any) -> Any:
    from gradlab import gradcheck

    fn = checkable(target, options.target)
    if options.inputs and options.shape:
        raise UsageError("--inputs and --shape exclude each other")
    if options.inputs:
        inputs = inputs_named(options.inputs)
    elif options.shape:
        inputs = random_inputs(options.shape, options.dtype, options.seed)
    else:
        raise UsageError(
            f"inputs are missing: --shape 3x4 once for each argument of "
            f"{options.target}, or --inputs module:name for what returns them"
        )
    reference = options.reference and checkable(
        named(options.reference), options.reference
    )
    keywords = {**_keywords(options), "progress": progress}
    if keywords["compile"] is None:
        keywords["compile"] = options.level == "full"
    try:
        return gradcheck(fn, inputs, reference, options.level, **keywords)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def _keywords(options: argparse.Namespace) -> Mapping[str, Any]:
    return {
        "declared": options.declared,
        "seed": options.seed,
        "compile": options.compile,
        "isolate": options.isolate,
        "timeout": options.timeout,
        "memory_gib": options.memory,
    }


def _refuse_with_ops(options: argparse.Namespace) -> None:
    for name in ("inputs", "shape", "dtype", "reference"):
        if getattr(options, name):
            raise UsageError(
                f"--{name} is of no use with {options.target}, whose OpInfo says it"
            )
