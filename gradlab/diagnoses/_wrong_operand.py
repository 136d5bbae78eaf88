"""The right rule, with another tensor in the place of the one that is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch, attempt, largest_entry

from ._evidence import Evidence, evidence


@dataclass(frozen=True)
class WrongOperand:
    """x̄ = (∂y/∂x)ᵀ ȳ at y, or at another input, where x is meant, or at −x."""

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        return _output(seen) or _input(seen) or _entrywise(seen)


def _output(seen: Evidence) -> str | None:
    for place, name in enumerate(seen.subject.input_names):
        for y in seen.subject.outputs:
            if _fixed_point(seen, place, y):
                continue  # as of a projection: the output is as good an input
            if y.shape == seen.subject.tensors[place].shape and seen.at(
                place, lambda _, y=y: y
            ):
                return (
                    f"the output is used where {name} is meant: the gradient is the "
                    f"true one for {name} = output"
                )
    return None


def _fixed_point(seen: Evidence, place: int, y: Tensor) -> bool:
    tensors = list(seen.subject.tensors)
    if y.shape != tensors[place].shape:
        return False
    tensors[place] = y
    again = attempt(lambda: seen.subject.moved(tensors).outputs)
    return isinstance(again, tuple) and any(
        z.shape == y.shape and largest_entry(z - y) <= 1e-6 * largest_entry(y)
        for z in again
    )


def _input(seen: Evidence) -> str | None:
    tensors, names = seen.subject.tensors, seen.subject.input_names
    for place, name in enumerate(names):
        for other, t in enumerate(tensors):
            if other == place or t.shape != tensors[place].shape:
                continue
            if seen.at(place, lambda _, t=t: t):
                return (
                    f"{names[other]} is used where {name} is meant: the gradient is "
                    f"the true one for {name} = {names[other]}"
                )
    if seen.at(seen.place, torch.neg):
        return f"the gradient is the true one for -{seen.name}: a sign inside is wrong"
    return None


_RULES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "{}": lambda t: t,
    "1 − {}²": lambda t: 1 - t * t,
    "{} (1 − {})": lambda t: t * (1 - t),
    "1 − {}": lambda t: 1 - t,
    "1 + {}": lambda t: 1 + t,
    "1 + {}²": lambda t: 1 + t * t,
    "1/{}": lambda t: 1 / t,
    "{}²": lambda t: t * t,
    "({} > 0)": lambda t: (t > 0).to(t.dtype),
}


def _entrywise(seen: Evidence) -> str | None:
    """The local derivative is a known function of y, and x was put into it, or so."""
    x, ys = seen.x, seen.subject.outputs
    if len(ys) != 1 or ys[0].shape != x.shape or x.is_complex():
        return None
    (v,), (w,) = seen.cotangents
    for rule, f in _RULES.items():
        for meant, used, names in (
            (ys[0], x, ("the output", seen.name)),
            (x, ys[0], (seen.name, "the output")),
        ):
            right = v * f(meant) - seen.expected[0]
            if largest_entry(right) > 1e-6 * largest_entry(seen.expected[0]):
                continue
            if seen.explained_by(lambda i, t=used, f=f: (v, w)[i] * f(t)):
                what = rule.replace("{}", "t")
                return (
                    f"{names[1]} is used where {names[0]} is meant: the gradient is "
                    f"grad_output ({what}) with t = {names[1]}"
                )
    return None
