"""What a Function shows that it cares for: the names that its own code reads.

A contract that most Functions never heard of is a fault only where it is half kept.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence

from gradlab.subject import FunctionClass


def names_read(method: object) -> list[str]:
    """The name of a method and of all that it wraps, and the names that these read.

    Args:
        method: A function, decorated or not.
    """
    found: list[str] = []
    while method is not None:
        code = getattr(method, "__code__", None)
        if code is not None:
            found += [code.co_name, *code.co_names]
        method = getattr(method, "__wrapped__", None)
    return found


METHODS = ("forward", "setup_context", "backward")


def mentions(
    cls: FunctionClass, words: Iterable[str], methods: Sequence[str] = METHODS
) -> bool:
    """Whether the methods of a Function, or the functions they call, read a name.

    Args:
        cls: The class; what it inherits from another Function counts too.
        words: The names.
        methods: Which methods to look at.
    """
    wanted = set(words)
    return any(wanted & set(names_read(code)) for code in _code_of(cls, methods))


def _code_of(cls: FunctionClass, methods: Sequence[str]) -> Iterator[object]:
    """Its own methods and those of its bases, and the functions that they name."""
    for owner in cls.__mro__:
        if owner.__module__.startswith("torch."):
            continue
        for name in methods:
            method = getattr(vars(owner).get(name), "__func__", vars(owner).get(name))
            if method is None:
                continue
            yield method
            inner = getattr(method, "__wrapped__", method)
            scope = getattr(inner, "__globals__", {})
            for called in names_read(inner):
                if isinstance(scope.get(called), types.FunctionType):
                    yield scope[called]
