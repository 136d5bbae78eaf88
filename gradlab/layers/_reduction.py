"""How a loss per element becomes the loss: none, mean or sum, in torch's words."""

from __future__ import annotations

import warnings

CODES = {"none": 0, "mean": 1, "sum": 2}
"""The numbers that torch's native losses know the three by."""


def resolve(
    name: str, size_average: bool | None, reduce: bool | None, reduction: str
) -> str:
    """Validates `reduction` and translates the two flags it has replaced.

    Args:
        name: The op, for the messages.
        size_average: Deprecated: mean when true, sum when false.
        reduce: Deprecated: none when false.
        reduction: The reduction, unless one of the two flags is given.

    Returns:
        `"none"`, `"mean"` or `"sum"`.

    Raises:
        ValueError: When `reduction` is none of the three.
    """
    if size_average is not None or reduce is not None:
        reduction = "mean" if size_average is not False else "sum"
        reduction = reduction if reduce is not False else "none"
        text = f"{name}: size_average and reduce are deprecated; use {reduction=}"
        warnings.warn(text, stacklevel=3)
    if reduction not in CODES:
        raise ValueError(
            f"{name}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}"
        )
    return reduction
