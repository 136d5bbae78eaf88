"""What an operator was given where its result is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ._culprit import Operand
from ._finite import dense, non_finite

Arguments = tuple[Any, Any]
"""Positional and named arguments of an operator."""


def operands_of(
    func: Any, arguments: Arguments, inputs: Sequence[Tensor], out: Tensor
) -> tuple[Operand, ...]:
    """The tensors that went into a result; of a pointwise operator its numbers too.

    Args:
        func: The operator.
        arguments: Its arguments.
        inputs: The tensors among them.
        out: The result.
    """
    where = None
    if out.layout is torch.strided:
        where = tuple((~torch.isfinite(dense(out))).nonzero()[0].tolist())
    pointwise = where is not None and torch.Tag.pointwise in func.tags
    operands = []
    for one in inputs:
        if not one.is_floating_point():
            continue
        values, value = dense(one), None
        if pointwise and _broadcasts(values, out):
            value = float(values.expand(out.shape)[where])
        elif where is not None and values.shape == out.shape and _is_softmax(func):
            row: list[Any] = list(where)
            row[arguments[0][1]] = slice(None)
            values = values[tuple(row)]
        operands.append(operand(one, values, value))
    if pointwise:
        operands += [
            Operand((), "number", x, x, float(x))
            for x in arguments[0]
            if isinstance(x, (int, float)) and not isinstance(x, bool)
        ]
    return tuple(operands)


def operand(tensor: Tensor, values: Tensor, value: float | None = None) -> Operand:
    """Describe a tensor.

    Args:
        tensor: The tensor.
        values: The part of it that its range is taken of.
        value: Its value at the first entry that is hit.
    """
    values = values[~values.isnan()]
    low = high = math.nan
    if values.numel():
        low, high = map(float, values.aminmax())
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Operand(tuple(tensor.shape), dtype, low, high, value)


def overflowed(func: Any, arguments: Arguments, out: Tensor) -> str:
    """The dtype of a result, if the operator is finite in a wider one; else empty.

    Args:
        func: The operator.
        arguments: Its arguments, as they were before the call; all finite.
        out: The result.
    """
    # A second draw of a random operator would shift all that come after it.
    if torch.Tag.nondeterministic_seeded in func.tags:
        return ""
    for wider in _WIDER.get(out.dtype, ()):
        try:
            args, kwargs = tree_map(partial(_widened, wider), arguments)
            results = tensors_in(func(*args, **kwargs))
        except Exception:
            # No such kernel, or no memory for it.
            return ""
        results = [result for result in results if result.shape == out.shape]
        if results and not any(map(non_finite, results)):
            return str(out.dtype).removeprefix("torch.")
    return ""


def born_beside(out: Tensor, inputs: Iterable[Tensor]) -> bool:
    """Whether a pointwise result is not finite where all inputs are.

    Args:
        out: The result.
        inputs: What it was made from.
    """
    born = ~torch.isfinite(dense(out))
    for one in inputs:
        if one.is_floating_point() and _broadcasts(one, out):
            born = born & torch.isfinite(dense(one))
    return bool(born.any())


def names_infinity(arguments: Arguments) -> bool:
    """Whether an argument is the number infinity.

    Args:
        arguments: The arguments of an operator.
    """
    leaves = tree_leaves(arguments)
    return any(isinstance(leaf, float) and math.isinf(leaf) for leaf in leaves)


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors among the arguments or results of an operator.

    Args:
        tree: Tuples, lists and dicts.
    """
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _broadcasts(values: Tensor, out: Tensor) -> bool:
    sizes = zip(reversed(values.shape), reversed(out.shape), strict=False)
    return values.ndim <= out.ndim and all(one in (1, size) for one, size in sizes)


def _is_softmax(func: Any) -> bool:
    return func._schema.name.endswith("softmax")


def _widened(wider: torch.dtype, one: Any) -> Any:
    if isinstance(one, torch.dtype):
        return wider if wider in _WIDER.get(one, ()) else one
    if not isinstance(one, Tensor):
        return one
    # An operator that works in place must have its own.
    return one.to(wider) if wider in _WIDER.get(one.dtype, ()) else one.clone()


_WIDER = {
    torch.float16: (torch.float32, torch.float64),
    torch.bfloat16: (torch.float32, torch.float64),
    torch.float32: (torch.float64,),
    torch.complex64: (torch.complex128,),
}
