"""Under autocast the backward takes what the forward gave, and stays as accurate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gradlab._report import Level
from gradlab.subject import (
    Crash,
    FunctionClass,
    Grads,
    Mismatch,
    NotChecked,
    Subject,
    attempt,
    functions,
    grad,
    own_forward_differentiated,
)

from ._promises import mentions, names_read
from ._refusal import raised_inside
from ._rounded import Rounded

_CODE = "autocast"
_HINT = (
    "decorate with torch.amp.custom_fwd and custom_bwd (device_type=...), or cast by "
    "hand: grad_y and the saved tensors to one dtype"
)
_ASKS = {
    "is_autocast_enabled",
    "is_autocast_cpu_enabled",
    "get_autocast_dtype",
    "get_autocast_cpu_dtype",
    "get_autocast_gpu_dtype",
}
_OF_AUTOCAST = {*_ASKS, "autocast", "decorate_fwd", "decorate_bwd"}
_OF_DTYPES = {"dtype", "type_as"}
"""A backward that reads one of these has thought of several dtypes."""


@dataclass(frozen=True)
class Autocast:
    """|x̄(autocast) − x̄| ≤ 16 ε(bfloat16), float32 inputs, backward outside and inside.

    torch recommends to leave autocast before the backward; many do not. What autograd
    of the own forward cannot do under autocast either is not held against a Function.
    Nor is it a fault of one that never thought of dtypes to stop with an error.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch when something raises, or loses more than bfloat16 does."""
        classes = functions(subject)
        if not classes:
            return
        if any(x.is_complex() for x in subject.tensors):
            raise NotChecked("autocast does not cast complex numbers")
        point = Rounded(subject, torch.float32)
        plain = attempt(lambda: point.narrow.vjp(point.cotangents))
        if isinstance(plain, Crash):
            return  # the low precision check says so
        forward = attempt(lambda: _forward(point))
        if isinstance(forward, Crash):
            if not raised_inside(forward.error, classes) or not _of_dtypes(forward):
                raise NotChecked(f"the forward does not run under autocast: {forward}")
            yield _raises(
                classes,
                f"the forward raises under autocast: {forward}",
                subject=subject,
            )
            return
        for inside in (False, True):
            wrong = list(_backward(subject, classes, point, inside))
            yield from wrong
            if wrong:
                return
        if _follows_state(classes) and (lost := _lost_inside(point)) is not None:
            name, error = subject.input_names[lost[0]], lost[1]
            yield Mismatch(
                _CODE,
                "warning",
                f"the gradient of {name} is accurate when the backward runs outside of "
                f"autocast, and has an error of {error:.1e} when it runs inside",
                input=name,
                hint="@torch.amp.custom_bwd makes the backward run in the autocast "
                "state of its forward",
                numbers={"relative error": error},
                subject=subject,
            )


def _backward(
    subject: Subject, classes: tuple[FunctionClass, ...], point: Rounded, inside: bool
) -> Iterator[Mismatch]:
    where = "backward inside autocast" if inside else "backward outside of autocast"
    found = attempt(lambda: _gradients(point, inside))
    if not isinstance(found, Crash) and max(point.errors(found)) <= 1e-4:
        return
    with own_forward_differentiated(classes):
        own = attempt(lambda: _gradients(point, inside))
    if isinstance(own, Crash):
        raise NotChecked(f"autograd of the own forward does not run there: {own}")
    if isinstance(found, Crash):
        message = f"under autocast the backward raises {found}"
        yield _raises(classes, message, where=where, subject=subject)
        return
    pairs = zip(point.errors(found), point.errors(own), strict=True)
    for name, (error, theirs) in zip(subject.input_names, pairs, strict=True):
        loose = error > 16 * torch.finfo(torch.bfloat16).eps + 4 * theirs
        if loose and _again(subject, point, classes, inside):
            yield Mismatch(
                _CODE,
                "error" if error > 1 else "warning",
                f"under autocast the gradient of {name} has an error of {error:.1e}, "
                f"autograd of the own forward of {theirs:.0e}",
                input=name,
                where=where,
                hint=_HINT,
                numbers={"relative error": error},
                subject=subject,
            )


def _raises(classes: tuple[FunctionClass, ...], message: str, **at: Any) -> Mismatch:
    promised = any(
        mentions(cls, _OF_AUTOCAST) or mentions(cls, _OF_DTYPES, ["backward"])
        for cls in classes
    )
    return Mismatch(
        _CODE,
        "error" if promised else "note",
        message,
        verdict="fragile" if promised else "correct",
        hint=_HINT,
        **at,
    )


def _again(
    subject: Subject,
    point: Rounded,
    classes: tuple[FunctionClass, ...],
    inside: bool,
) -> bool:
    """Whether it is as bad elsewhere: rounding makes ties, with two right gradients."""
    other = Rounded(subject, point.dtype, factor=0.9, which=1)

    def worst() -> float:
        return max(other.errors(_gradients(other, inside)))

    mine = attempt(worst)
    with own_forward_differentiated(classes):
        own = attempt(worst)
    if isinstance(mine, Crash) or isinstance(own, Crash):
        return False
    return mine > 16 * torch.finfo(torch.bfloat16).eps + 4 * own


def _forward(point: Rounded) -> tuple[torch.Tensor, ...]:
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        return point.narrow.run(point.narrow.fresh())


def _gradients(point: Rounded, inside: bool) -> Grads:
    leaves = point.narrow.fresh()
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        ys = point.narrow.run(leaves)
    vs = [v.to(y.dtype, copy=True) for v, y in zip(point.cotangents, ys, strict=True)]
    with torch.autocast("cpu", torch.bfloat16, enabled=inside, cache_enabled=False):
        return grad(ys, leaves, vs)


def _of_dtypes(crash: Crash) -> bool:
    text = str(crash.error).lower()
    return any(word in text for word in ("dtype", "scalar type", "bfloat16", "float"))


def _lost_inside(point: Rounded) -> tuple[int, float] | None:
    """The first gradient that is a float32 one outside only, and its error inside."""
    errors = zip(
        point.errors(_gradients(point, False)),
        point.errors(_gradients(point, True)),
        strict=True,
    )
    for place, (outside, inside) in enumerate(errors):
        if outside <= 1e-5 and inside > 1e-3:
            return place, inside
    return None


def _follows_state(classes: tuple[FunctionClass, ...]) -> bool:
    """Whether a backward follows the autocast state of now, not that of its forward."""
    return any(
        ("decorate_fwd" in names_read(cls.forward) and not _handles(cls))
        or _ASKS & set(names_read(cls.backward))
        for cls in classes
    )


def _handles(cls: FunctionClass) -> bool:
    return bool({"decorate_bwd", "autocast"} & set(names_read(cls.backward)))
