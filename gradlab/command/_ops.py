"""Every op of a module at all its sample inputs, against its reference: a table."""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import torch

from gradlab import OpInfo, Report, SampleInput, gradcheck
from gradlab._opinfo import make_tensors

from ._named import UsageError
from ._progress import show as show_report


def ops_in(target: Any, has_inputs: bool) -> tuple[OpInfo, ...] | None:
    """The ops that a target stands for; None if it is to be checked as a function.

    Args:
        target: A module with `opinfos`, an OpInfo, or the op of one.
        has_inputs: Whether inputs were given, so that an op is just a function.
    """
    if isinstance(target, types.ModuleType):
        found = getattr(target, "opinfos", None)
        return None if found is None else tuple(found)
    if isinstance(target, OpInfo):
        return (target,)
    home = sys.modules.get(getattr(target, "__module__", None) or "")
    info = getattr(home, "opinfo", None)
    if not has_inputs and isinstance(info, OpInfo) and info.op is target:
        return (info,)
    return None


def check_ops(
    ops: Sequence[OpInfo],
    options: argparse.Namespace,
    keywords: Mapping[str, Any],
    progress: Callable[[str], None],
    stdout: TextIO,
) -> int:
    """Checks ops and prints a line for each, then the reports that are not ok.

    Args:
        ops: The ops.
        options: The parsed arguments.
        keywords: Of `gradcheck`, with `compile=None` for the first sample only.
        progress: Shows a step.
        stdout: Where the table goes, or the JSON.

    Returns:
        0 if every report is ok, else 1.
    """
    began = time.perf_counter()
    documents: list[dict[str, Any]] = []
    failed: list[tuple[str, Report]] = []
    for op in ops:
        reports = _reports(op, options.level, keywords, progress)
        # Of an empty sample there is nothing to say but that it ran.
        bad = [
            (f"{op.name}/{name}", r)
            for name, r in reports
            if not r.ok and not (r.verdict == "inconclusive" and not r.findings)
        ]
        failed += bad
        documents += [{"op": op.name, "sample": n, **r.to_dict()} for n, r in reports]
        if not options.json:
            spoken = [r for _, r in bad or reports if r.findings or r.ok]
            verdicts = ", ".join(sorted({r.verdict for r in spoken}))
            seconds = sum(r.seconds for _, r in reports)
            state = f"{len(bad)} not ok: {verdicts}" if bad else f"all {verdicts}"
            row = f"{op.name:<16} {len(reports):>3} samples  {seconds:6.2f} s  {state}"
            print(row, file=stdout, flush=True)
    if options.json:
        print(json.dumps(documents, indent=2, default=dict), file=stdout)
        return 1 if failed else 0
    for name, report in failed:
        print(f"\n{name}", file=stdout)
        show_report(report, stdout)
    print(
        f"\n{len(ops)} op{'s'[: len(ops) != 1]}, {len(documents)} samples, level "
        f"{options.level}: {len(failed) or 'none'} not ok, "
        f"{time.perf_counter() - began:.1f} s",
        file=stdout,
    )
    return 1 if failed else 0


def _reports(
    op: OpInfo,
    level: Any,
    keywords: Mapping[str, Any],
    progress: Callable[[str], None],
) -> list[tuple[str, Report]]:
    reports = []
    for i, sample in enumerate(op.sample_inputs(make_tensors(torch.float64))):
        own = dict(keywords, kwargs=sample.kwargs)
        if own["compile"] is None:
            own["compile"] = level == "full" and i == 0
        reports.append((sample.name, _report(op, sample, level, own, progress)))
    return reports


def _report(
    op: OpInfo,
    sample: SampleInput,
    level: Any,
    keywords: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Report:
    def show(step: str) -> None:
        progress(f"{op.name}/{sample.name}: {step}")

    try:
        return gradcheck(
            op.op, sample.args, op.reference, level, progress=show, **keywords
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"{op.name}/{sample.name}: {error}") from None
