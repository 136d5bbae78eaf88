"""A slice of a call: a few rows of what is batched, the rest as it is.

Which arguments are batched is found out by trial: the forward is run on the slice, and
the shapes of its outputs must be those of the real ones, cut or whole. Whatever is cut,
the explicit backward and its reference are handed the same slice, so no choice of rows
can make a right one look wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Depths = tuple[int, ...]

ENTRIES = 2**14
"""A slice of an argument has not many more entries than that."""
_MOST_TRIED = 6


class Plan(NamedTuple):
    """How the calls of one site are cut.

    Attributes:
        lead: Which argument chooses the rows.
        sizes: How many indices of its leading dimensions are kept.
        args: How many leading dimensions of each argument are cut, 0 for whole.
        outputs: The same of the outputs; None: all whole.
    """

    lead: int
    sizes: tuple[int, ...]
    args: Depths
    outputs: Depths | None


def planned(
    forward: Callable[..., Any], args: Sequence[Any], rows: int, cuttable: int
) -> Plan:
    """The deepest cut under which the forward still makes outputs of their shapes.

    Args:
        forward: The forward, a function of the arguments.
        args: The arguments of a real call; nothing is written to them.
        rows: How many rows to keep, at most.
        cuttable: How many leading dimensions may be cut, at most.
    """
    outputs: tuple[Any, ...] | None = None
    for plan in _candidates(args, rows, cuttable):
        if outputs is None:
            outputs = _run(forward, args)
        try:
            rows_of = chosen_rows(args[plan.lead], plan.sizes)
            found = _run(forward, cut(args, plan.args, rows_of))
        except Exception:
            continue
        depths = _depths(outputs, found, plan)
        if depths is not None:
            return plan._replace(outputs=depths)
    return Plan(0, (), (0,) * len(args), None)


def chosen_rows(lead: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The rows with the largest entries, and as many spread evenly.

    Args:
        lead: The argument that chooses.
        sizes: How many to keep, at most, along each leading dimension.
    """
    found: list[Tensor] = []
    for dim, size in enumerate(sizes):
        n = lead.shape[dim]
        others = [d for d in range(lead.ndim) if d != dim]
        values = lead.detach()
        peaks = torch.linalg.vector_norm(values, math.inf, others) if others else values
        extreme = peaks.abs().topk(max(1, size // 2)).indices
        rest = torch.ones(n, dtype=torch.bool, device=lead.device)
        rest = rest.index_fill(0, extreme, False).nonzero().flatten()
        spread = torch.linspace(0, len(rest) - 1, size - len(extreme)).long()
        even = rest[spread.to(lead.device)]
        found.append(torch.cat([extreme, even]).sort().values)
    return found


def cut(
    values: Sequence[Any], depths: Depths | None, rows: Sequence[Tensor]
) -> list[Any]:
    """Copies of the chosen rows, or of all; a parameter that is not cut is itself.

    Args:
        values: Tensors and other things.
        depths: How many leading dimensions of each are cut; None: none.
        rows: The indices to keep along each leading dimension.
    """
    depths = (0,) * len(values) if depths is None else depths
    found: list[Any] = []
    for value, depth in zip(values, depths, strict=True):
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            value = value.detach() if depth else value.detach().clone()
            for dim in range(depth):
                value = value.index_select(dim, rows[dim])
        found.append(value)
    return found


def _run(forward: Callable[..., Any], args: Sequence[Any]) -> tuple[Any, ...]:
    with torch.no_grad():
        outputs = forward(*(a.clone() if isinstance(a, Tensor) else a for a in args))
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def _candidates(args: Sequence[Any], rows: int, cuttable: int) -> Iterator[Plan]:
    """Cuts to try, the deepest and those of most arguments first."""
    batched = [i for i, arg in enumerate(args) if _may_be_batched(arg)]
    for depth in range(cuttable, 0, -1):
        for lead in batched:
            if not args[lead].is_floating_point():
                continue
            sizes = _sizes(args[lead].shape, rows, depth)
            if len(sizes) < depth:
                continue
            n = args[lead].shape[0]
            fit = [i for i in batched if i != lead and args[i].shape[0] == n]
            for count in range(min(len(fit), _MOST_TRIED), -1, -1):
                for group in combinations(fit, count):
                    yield _plan(args, lead, {lead, *group}, sizes)


def _plan(
    args: Sequence[Any], lead: int, group: set[int], sizes: tuple[int, ...]
) -> Plan:
    shape = args[lead].shape
    depths = [
        _common(args[i].shape, shape, len(sizes)) if i in group else 0
        for i in range(len(args))
    ]
    return Plan(lead, sizes, tuple(depths), None)


def _sizes(shape: torch.Size, rows: int, depth: int) -> tuple[int, ...]:
    """What is kept along the leading dimensions, of which the last one may be whole."""
    sizes = [min(rows, max(2, ENTRIES // max(shape[1:].numel(), 1)))]
    if depth == 2:
        left = sizes[0] * shape[1:].numel()
        if len(shape) < 3 or left <= ENTRIES:
            return ()
        sizes.append(max(rows, ENTRIES // (sizes[0] * shape[2:].numel())))
    # Cutting must take something away, at least from the last dimension of the cut.
    if sizes[-1] >= shape[len(sizes) - 1]:
        return ()
    return tuple(min(s, n) for s, n in zip(sizes, shape, strict=False))


def _common(shape: torch.Size, lead: torch.Size, depth: int) -> int:
    same = 0
    while same < min(depth, len(shape)) and shape[same] == lead[same]:
        same += 1
    return same


def _may_be_batched(arg: Any) -> bool:
    return (
        isinstance(arg, Tensor) and arg.ndim > 0 and not isinstance(arg, nn.Parameter)
    )


def _depths(outputs: Sequence[Any], found: Sequence[Any], plan: Plan) -> Depths | None:
    """How the outputs are cut; None if one has neither shape."""
    if len(found) != len(outputs):
        return None
    depths: list[int] = []
    for real, part in zip(outputs, found, strict=True):
        if not isinstance(real, Tensor) or not isinstance(part, Tensor):
            depths.append(0)
            continue
        fits = [
            depth
            for depth in range(min(len(plan.sizes), real.ndim) + 1)
            if _shape(real, plan, depth) == part.shape
        ]
        if not fits:
            return None
        depths.append(fits[0])
    return tuple(depths)


def _shape(real: Tensor, plan: Plan, depth: int) -> torch.Size:
    return torch.Size((*plan.sizes[:depth], *real.shape[depth:]))
