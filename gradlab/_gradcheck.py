"""`gradcheck`: is a backward right, where is it wrong, and why.

Function and inputs → Subject → checks → mismatches → diagnoses → Report. What runs when
is decided in `_run.py`; the mathematics is in `subject`, `checks` and `diagnoses`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ._report import Finding, Level, Report, Verdict
from ._run import LEVELS, Progress, Run
from .isolation import isolated
from .subject import build, describe, functions, undisturbed


def gradcheck(
    fn: Any,
    inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    reference: Callable[..., Any] | None = None,
    level: Level = "full",
    *,
    kwargs: Mapping[str, Any] | None = None,
    declared: Verdict | Iterable[Verdict] = (),
    seed: int = 0,
    progress: Progress | None = None,
    compile: bool = False,
    isolate: bool = False,
    timeout: float = 60.0,
    memory_gib: float | None = None,
) -> Report:
    """Checks the backward pass of a function, and says what is wrong with it and why.

    The comparison runs in float64 where `fn` allows it, whatever the dtype of `inputs`.
    Your tensors, the state of the random generators, a Module's buffers and grad mode
    are as they were afterwards, also when it raises.

    Args:
        fn: A callable, an `autograd.Function` subclass or a Module, whose parameters
            join the inputs.
        inputs: A tensor, a sequence of arguments or a dict of keyword arguments, nested
            as you like. What requires grad is checked, the rest is passed on.
        reference: A differentiable callable of the same arguments. Without it the truth
            is autograd of each Function's own forward, held against finite differences.
        level: `"value"` (milliseconds), `"contract"` (everything a backward promises
            beside its value) or `"full"` (other points and shapes as well).
        kwargs: Keyword arguments for `fn`.
        declared: Verdicts that are meant: `"surrogate"`, `"approximate"`.
        seed: Seed of the random grad_outputs and directions.
        progress: Called with the name of each step before it runs.
        compile: Whether to check it under `torch.compile` too, which takes seconds.
        isolate: Whether to check in a child process: a crash of the interpreter, an
            exit or a limit exceeded is then a finding.
        timeout: Seconds until the child is stopped.
        memory_gib: GiB it may take beyond what is in use now; None for no limit.

    Returns:
        The report; `report.ok` says whether all is well, `print(report)` the rest.

    Raises:
        TypeError: When an argument is of the wrong kind.
        ValueError: When there is nothing to differentiate, or `fn` raises.

    Example:
        >>> import torch
        >>> class Cube(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x**3
        ...
        ...     @staticmethod
        ...     def backward(ctx, grad_y):
        ...         (x,) = ctx.saved_tensors
        ...         return grad_y * 2 * x**2
        >>> x = torch.randn(3, 4, requires_grad=True)
        >>> gradcheck(Cube, x, level="value").verdict
        'wrong'
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    accepted = (declared,) if isinstance(declared, str) else tuple(declared)
    if unknown := set(accepted) - {"surrogate", "approximate"}:
        raise ValueError(
            "declared must be 'surrogate', 'approximate' or both, got "
            f"{', '.join(map(repr, sorted(unknown)))}"
        )
    if not isinstance(seed, int):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    watch = progress or (lambda step: None)
    options = {"kwargs": kwargs, "seed": seed, "compile": compile}
    check = partial(_check, fn, inputs, reference, level, accepted, **options)
    if isolate:
        return isolated(check, _name(fn), level, timeout, memory_gib, watch)
    return check(progress=watch)


def _check(
    fn: Any,
    inputs: Any,
    reference: Callable[..., Any] | None,
    level: Level,
    accepted: tuple[Verdict, ...],
    *,
    kwargs: Mapping[str, Any] | None,
    seed: int,
    compile: bool,
    progress: Progress,
    so_far: Callable[[Report], None] | None = None,
) -> Report:
    began = time.perf_counter()
    given = tree_leaves((fn, reference, inputs, kwargs))
    with undisturbed(given), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        progress("forward_runs")
        subject = build(fn, inputs, kwargs=kwargs, reference=reference, seed=seed)

        def report(findings: Sequence[Finding]) -> Report:
            return Report(
                run.verdict,
                subject.title,
                level,
                tuple(findings),
                tuple(cls.__name__ for cls in functions(subject)),
                tuple(
                    f"{name}: {describe(x)}"
                    for name, x in zip(
                        subject.input_names, subject.tensors, strict=True
                    )
                ),
                run.reference,
                str(subject.dtype).removeprefix("torch."),
                subject.tolerance,
                run.not_checked,
                accepted,
                time.perf_counter() - began,
            )

        tell = None if so_far is None else lambda found: so_far(report(found))
        run = Run(subject, level, progress, compile, tell)
        return report(run.findings())


def _name(fn: Any) -> str:
    owner = getattr(fn, "__self__", None)
    named = owner if isinstance(owner, type) else fn
    return getattr(named, "__name__", type(fn).__name__)
