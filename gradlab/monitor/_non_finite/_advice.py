"""One thing to try, by the operation that is to blame."""

from __future__ import annotations

_ROOT = (
    "add a small number under the root: its derivative at 0 is infinite, and where() "
    "after it does not help"
)
_MASKED = (
    "leave each row an entry that is not masked, or set the rows without one to 0 "
    "before the softmax"
)
_DIVISOR = "a divisor that cannot be 0: clamp_min(eps), or x / (y + eps)"
_EQUAL = "vectors of equal eigenvalues have no derivative: break the tie, or detach"
_IGNORED = "a mean over no targets is 0/0: leave out batches whose targets are ignored"
_INSIDE = "keep its input inside of (-1, 1)"

_BY_OPERATION = {
    "acos": _INSIDE,
    "asin": _INSIDE,
    "atan2": "its derivative at (0, 0) does not exist: keep away from it",
    "atanh": _INSIDE,
    "div": _DIVISOR,
    "exp": "subtract the largest value before it, as softmax and logsumexp do",
    "linalg_vector_norm": "add a small number under the root of the norm",
    "linalg_eigh": _EQUAL,
    "linalg_svd": _EQUAL,
    "log": "log of a probability: log_softmax or logsigmoid; else clamp_min(eps) first",
    "log10": "clamp_min(eps) before it",
    "log1p": "keep its input above -1",
    "log2": "clamp_min(eps) before it",
    "log_softmax": _MASKED,
    "nll_loss": _IGNORED,
    "nll_loss_forward": _IGNORED,
    "pow": "keep the base away from 0, where this power or its derivative is infinite",
    "reciprocal": _DIVISOR,
    "rsqrt": "add a small number under the root",
    "softmax": _MASKED,
    "sqrt": _ROOT,
    "std": "its derivative is infinite where all values are equal: (var + eps).sqrt()",
}
_OF_ONE_VALUE = (
    "it divides by the number of values less 1: more values, or correction=0"
)
_IN_THE_FORWARD = {"std": _OF_ONE_VALUE, "var": _OF_ONE_VALUE}


def advice_for(operation: str, kind: str) -> str:
    """What to try against an operation that gives NaN or infinity.

    Args:
        operation: Torch's name for it, or the name of an `autograd.Function`.
        kind: Whether it was in the `forward` or in the `backward`.
    """
    name = operation.strip("_")
    if kind == "forward" and name in _IN_THE_FORWARD:
        return _IN_THE_FORWARD[name]
    return _BY_OPERATION.get(name, f"change what goes into {name}, or {name} itself")
