"""Of a crash: is it a clear refusal, and did it come out of a Function."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import CodeType

import torch

from gradlab.subject import FunctionClass

_REFUSALS = re.compile(
    r"not implemented|not supported|does(?:n't| not) support|unsupported|not "
    r"differentiable|no derivative|have a derivative|differentiate twice|"
    r"once_differentiable|double.?backward|higher.?order|second.?order|"
    r"can't call numpy|cannot access (?:data pointer|storage)|"
    r"does not have vmap support|setup_context",
    re.IGNORECASE,
)
_METHODS = ("forward", "setup_context", "backward", "vjp", "jvp", "vmap")


def refuses(error: Exception) -> bool:
    """Whether a message says that something is not supported, and so is no accident.

    Args:
        error: What was raised.
    """
    return isinstance(error, NotImplementedError) or bool(_REFUSALS.search(str(error)))


def raised_inside(error: Exception, classes: Iterable[FunctionClass]) -> bool:
    """Whether a method of one of the Functions was running when it was raised.

    Args:
        error: What was raised.
        classes: The Functions.
    """
    codes = {code for cls in classes for code in _codes(cls)}
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code in codes or code.co_name.startswith("custom_function_call_vmap"):
            return True
        trace = trace.tb_next
    return False


def lacks_setup_context(classes: Iterable[FunctionClass]) -> list[str]:
    """Names of the Functions that torch.func refuses: their forward takes ctx.

    Args:
        classes: The Functions.
    """
    unset = torch.autograd.Function.setup_context
    return [cls.__name__ for cls in classes if cls.setup_context is unset]


def _codes(cls: FunctionClass) -> Iterable[CodeType]:
    for name in _METHODS:
        method = getattr(cls, name, None)
        while method is not None:
            # torch's own stand-ins for what a class lacks would match everywhere.
            if method is not getattr(torch.autograd.Function, name, None) and hasattr(
                method, "__code__"
            ):
                yield method.__code__
            method = getattr(method, "__wrapped__", None)
