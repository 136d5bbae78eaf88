"""The target of a check as `gradcheck` takes it, or why it cannot be checked."""

from __future__ import annotations

import types
from typing import Any

from ._named import UsageError


def checkable(target: Any, name: str) -> Any:
    """The target itself; for a Module class that needs no arguments, an instance.

    Args:
        target: What was named.
        name: How it was named.

    Raises:
        UsageError: When it is nothing that has a backward.
    """
    import torch

    if isinstance(target, types.ModuleType):
        there = [n for n, v in vars(target).items() if _is_function(v, target)]
        raise UsageError(
            f"{name} is a module without `opinfos`: say what to check in it, as "
            f"{name}:{there[0] if there else 'name'}"
            + (f". It has {', '.join(there)}" if there else "")
        )
    if isinstance(target, type) and issubclass(target, torch.nn.Module):
        try:
            return target()
        except Exception as error:
            raise UsageError(
                f"a Module class must need no arguments, {target.__name__}() raised "
                f"{type(error).__name__}: {error}. Name an instance, or a function "
                "that calls one"
            ) from None
    if isinstance(target, type) and issubclass(target, torch.autograd.Function):
        return target
    if isinstance(target, type) or not callable(target):
        kind = "a class" if isinstance(target, type) else f"a {type(target).__name__}"
        raise UsageError(
            f"{name} must be a function, an autograd.Function or a Module; it is {kind}"
        )
    return target


def _is_function(value: Any, module: types.ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module.__name__
