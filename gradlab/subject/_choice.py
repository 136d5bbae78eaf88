"""Recognises a gradient that is a choice: straight-through, reversal, a spike, ...

Only where the forward makes the choice plausible: it is piecewise constant, so that its
derivative is useless, it clamps to an interval, or it is the identity or ignores the
input, so that its backward is all there is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._mismatch import Crash, attempt
from ._subject import Subject, Tensors, filled, largest_entry


def recognise(subject: Subject, place: int) -> str | None:
    """Says in words which choice the gradient of one input is.

    Args:
        subject: The function and the point.
        place: Index into `subject.tensors`.

    Returns:
        A phrase; None where the forward leaves no choice.
    """
    x = subject.tensors[place]
    first, second = (filled(g[place], x) for g in subject.gradients)
    if _identity(subject, place):
        return _of_identity(subject, place, first, second)
    matching = _same_shape_output(subject, x)
    if matching is None:
        if _steps(subject, place):
            return _CHOSEN
        return _RANGE if _scales_a_step(subject, place) else None
    # A float32 output of a float64 input, as `(x > 0).float()` is.
    v, w = (cotangents[matching].to(first.dtype) for cotangents in subject.cotangents)
    constant = _ratio(first, v)
    passed_on = torch.equal(first, v) and torch.equal(second, w)
    if passed_on and _ignores(subject, place):
        return "grad_output is passed on to an input that the forward does not read"
    if passed_on and _clamps(subject, place, matching):
        return "straight-through: grad_output is passed on where the forward clamps too"
    if _leads_back(subject, matching, (first, v), (second, w), x):
        return "past a bound, grad_output is passed on where a step leads back to it"
    if not _steps(subject, place):
        return _beside_a_step(subject, place, (first, v), (second, w))
    if constant is not None and _close(second, constant * w):
        if abs(constant - 1) < 1e-6:
            return "straight-through: grad_output is passed on as it is"
        return f"straight-through, scaled by {constant:.4g}"
    passed = (first - v).abs() <= 1e-6 * v.abs()
    if bool((passed | (first == 0)).all()) and _close(second, w * passed):
        return f"straight-through where {_region(x, passed)}, zero elsewhere"
    slope, again = first / v, second / w
    if _close(slope, again):
        peak = x.reshape(-1)[slope.abs().reshape(-1).argmax()]
        return (
            "a surrogate slope over a step: grad_output times a function of the input, "
            f"largest ({largest_entry(slope):.3g}) near {float(peak.real):.3g}"
        )
    return _CHOSEN


_CHOSEN = "a gradient chosen for a forward that is piecewise constant"
_RANGE = "the forward is piecewise constant in another input, whose gradient is chosen"
_Pair = tuple[Tensor, Tensor]


def _scales_a_step(subject: Subject, place: int) -> bool:
    """Whether another input is rounded, with a gradient all the same: it has a scale.

    What a step size or a range gets follows from that choice; there is no truth to it.
    """
    return any(
        i != place
        and any(bool(filled(g[i], x).any()) for g in subject.gradients)
        and _steps(subject, i)
        for i, x in enumerate(subject.tensors)
    )


def _beside_a_step(subject: Subject, place: int, one: _Pair, two: _Pair) -> str | None:
    """Rounding to a grid that the input itself spans: it steps where that is held.

    The forward is constant in all entries but the few that are extrema.
    """
    if _scales_a_step(subject, place):
        return _RANGE
    x = subject.tensors[place]
    if x.numel() < 4 or x.is_complex():
        return None
    passed = all(bool(((g == v) | (g == 0)).all()) for g, v in (one, two))
    if not passed or not bool((one[0] != 0).any()):
        return None
    flat = x.reshape(-1)
    rank = flat.abs().argsort().argsort().view(x.shape)
    inner = (rank < x.numel() - 1) & (x != flat.min()) & (x != flat.max())
    draw = _draw(subject, x) * inner
    near = _outputs(subject, place, x + 1e2 * subject.eps * draw)
    if not _same(subject.outputs, near):
        return None
    far = _outputs(subject, place, x + 0.5 * (flat.median() - x) * inner)
    if far is None or _same(subject.outputs, far):
        return None
    return "straight-through, past a rounding to a grid that the extrema span"


def _leads_back(
    subject: Subject, matching: int, one: _Pair, two: _Pair, x: Tensor
) -> bool:
    """Whether a clamped entry passes ȳ on where −ȳ points to the bound, else nothing.

    So a parameter that has left its interval can come back, as torch's clamp forbids.
    """
    y = subject.outputs[matching]
    if x.is_complex() or y.shape != x.shape or len(subject.outputs) > 1:
        return False
    beyond = x - y
    if not bool((beyond == 0).any()) or not bool((beyond != 0).any()):
        return False
    return all(
        bool((g == torch.where((beyond == 0) | (v * beyond > 0), v, 0 * v)).all())
        for g, v in (one, two)
    )


def _identity(subject: Subject, place: int) -> bool:
    """Whether the output is the input, here and wherever all inputs are elsewhere.

    Times a weight of one, plus a bias of zero or relu of positive numbers is not it.
    """
    x = subject.tensors[place]
    if len(subject.outputs) != 1 or not torch.equal(subject.outputs[0], x):
        return False
    moved = subject.at(
        a - 2 * _draw(subject, a)
        if isinstance(a, Tensor) and (a.is_floating_point() or a.is_complex())
        else a
        for a in subject.leaves
    )
    with torch.no_grad():
        outputs = attempt(lambda: moved.run(moved.tensors))
    return isinstance(outputs, Crash) or torch.equal(outputs[0], moved.tensors[place])


def _of_identity(subject: Subject, place: int, first: Tensor, second: Tensor) -> str:
    v, w = (cotangents[0].to(first.dtype) for cotangents in subject.cotangents)
    constant = _ratio(first, v)
    if constant is not None and _close(second, constant * w):
        if constant < 0:
            return f"gradient reversal: {constant:.4g} times grad_output"
        if constant == 0:
            return "the gradient is stopped"
        return f"the gradient is scaled by {constant:.4g}"
    bound = largest_entry(first)
    if _close(first, v.clamp(-bound, bound) if not v.is_complex() else v):
        return f"the gradient is clipped to ±{bound:.4g}"
    ratio = _ratio(first, v, tolerance=1e-6)
    if ratio is not None:
        return "the gradient is rescaled by its own norm"
    return "the forward is the identity, and the backward changes the gradient"


def _steps(subject: Subject, place: int) -> bool:
    """Whether the forward is constant around the point and not constant at large."""
    x = subject.tensors[place]
    draw = _draw(subject, x)
    near = _outputs(subject, place, x + 1e2 * subject.eps * draw)
    if not _same(subject.outputs, near):
        return False
    # Some of these are out of the domain; the same numbers in another order are not.
    elsewhere = (x + draw, x - draw, -x, x.reshape(-1).flip(0).view(x.shape))
    return any(
        (far := _outputs(subject, place, other)) is not None
        and not _same(subject.outputs, far)
        for other in elsewhere
    )


def _ignores(subject: Subject, place: int) -> bool:
    """Whether the outputs stay the same when the input is another one altogether."""
    x = subject.tensors[place]
    return _same(subject.outputs, _outputs(subject, place, x + _draw(subject, x)))


def _clamps(subject: Subject, place: int, matching: int) -> bool:
    """Whether the forward is the identity between two bounds, and constant beyond."""
    x, y = subject.tensors[place], subject.outputs[matching]
    if x.is_complex() or len(subject.outputs) > 1 or not bool((x == y).any()):
        return False
    far = 1e3 * (largest_entry(x) + largest_entry(y))
    low, lower, high, higher = (
        _outputs(subject, place, torch.full_like(x, t))
        for t in (-far, -2 * far, far, 2 * far)
    )
    if low is None or high is None or not (_same(low, lower) and _same(high, higher)):
        return False
    between = (y == x) | (y == low[0]) | (y == high[0])
    return bool((low[0] < high[0]).all()) and bool(between.all())


def _draw(subject: Subject, x: Tensor) -> Tensor:
    # Never the seed of a user's own torch.randn, or the draw would be the input.
    generator = torch.Generator().manual_seed(subject.seed + 3571)
    draw = torch.randn(x.shape, dtype=torch.float64, generator=generator).to(x)
    return draw * (largest_entry(x) or 1.0)


def _outputs(subject: Subject, place: int, x: Tensor) -> Tensors | None:
    tensors = [t.clone() for t in subject.tensors]
    tensors[place] = x
    with torch.no_grad():
        outputs = attempt(lambda: subject.run(tensors))
    return None if isinstance(outputs, Crash) else outputs


def _same(first: Tensors, second: Tensors | None) -> bool:
    return second is not None and all(map(torch.equal, first, second))


def _same_shape_output(subject: Subject, x: Tensor) -> int | None:
    for i, y in enumerate(subject.outputs):
        if y.shape == x.shape:
            return i
    return None


def _ratio(g: Tensor, v: Tensor, tolerance: float = 1e-9) -> float | None:
    """The constant c of g = c v, where there is one."""
    if not v.numel():
        return None
    c = torch.linalg.vecdot(v.reshape(-1), g.reshape(-1)) / v.norm() ** 2
    if bool((g - c * v).abs().max() <= tolerance * v.abs().max()):
        return float(c.real)
    return None


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-6 * (largest_entry(b) or 1.0))


def _region(x: Tensor, passed: Tensor) -> str:
    if not bool(passed.any()) or x.is_complex():
        return "nothing"
    low, high = float(x[passed].min()), float(x[passed].max())
    inside = bool(((x >= low) & (x <= high) == passed).all())
    return f"{low:.3g} ≤ input ≤ {high:.3g}" if inside else "some entries"
