"""What the functionals ask of their arguments, in the words of the functional."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Pair = int | tuple[int, ...] | list[int]
"""One number for both axes of an image, or one for each."""


def tensors(op: str, **named: Any) -> None:
    """Checks that arguments are tensors.

    Args:
        op: The functional, for the message.
        **named: The arguments, by name.

    Raises:
        TypeError: When one is something else.
    """
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}; "
                "torch.as_tensor makes one of a list or an array"
            )


def alike(op: str, **named: Tensor | None) -> None:
    """Checks that tensors are on one device and, without autocast, of one dtype.

    Args:
        op: The functional, for the message.
        **named: The tensors, by name; None is passed over.

    Raises:
        RuntimeError: When two of them differ.
    """
    given = {name: tensor for name, tensor in named.items() if tensor is not None}
    first = next(iter(given.values()))
    device, dtype = first.device, first.dtype
    casting = device.type != "meta" and torch.is_autocast_enabled(device.type)
    for tensor in given.values():
        if tensor.device != device or (tensor.dtype != dtype and not casting):
            kinds = (f"{n} {t.dtype} on {t.device}" for n, t in given.items())
            raise RuntimeError(
                f"{op}: {', '.join(given)} must have one dtype and one device, got "
                f"{', '.join(kinds)}; move them with .to()"
            )


def pair(op: str, name: str, value: Any) -> tuple[int, int]:
    """Resolves one number, or two, for the height and the width.

    Args:
        op: The functional, for the message.
        name: The argument, for the message.
        value: A whole number, or a sequence of one or two.

    Returns:
        One number for the height and one for the width.

    Raises:
        TypeError: When it is neither a number nor a sequence of numbers.
        RuntimeError: When it has more than two numbers, or none.
    """
    numbers = value if isinstance(value, (tuple, list)) else (value,)
    if not all(isinstance(n, (int, torch.SymInt)) for n in numbers):
        raise TypeError(f"{op}: {name} must be one or two whole numbers, got {value!r}")
    if len(numbers) not in (1, 2):
        raise RuntimeError(f"{op}: {name} must be one or two numbers, got {value!r}")
    return numbers[0], numbers[-1]
