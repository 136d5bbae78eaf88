"""Recognises a gradient that is a choice: straight-through, reversal, a spike, ...

Only where the forward makes the choice plausible: it is piecewise constant, so that its
derivative is useless, or it is the identity, so that its backward is all there is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._subject import Subject, filled, largest_entry


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
    if not _steps(subject, place):
        return None
    matching = _same_shape_output(subject, x)
    if matching is None:
        return "a gradient chosen for a forward that is piecewise constant"
    v, w = (cotangents[matching] for cotangents in subject.cotangents)
    constant = _ratio(first, v)
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
    return "a gradient chosen for a forward that is piecewise constant"


def _identity(subject: Subject, place: int) -> bool:
    x = subject.tensors[place]
    return len(subject.outputs) == 1 and torch.equal(subject.outputs[0], x)


def _of_identity(subject: Subject, place: int, first: Tensor, second: Tensor) -> str:
    v, w = (cotangents[0] for cotangents in subject.cotangents)
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
    generator = torch.Generator().manual_seed(subject.seed)
    draw = torch.randn(x.shape, dtype=torch.float64, generator=generator).to(x)
    size = largest_entry(x) or 1.0

    def outputs(step: float) -> tuple[Tensor, ...]:
        tensors = [t.clone() for t in subject.tensors]
        tensors[place] = x + step * size * draw
        with torch.no_grad():
            return subject.run(tensors)

    near, far = outputs(1e2 * subject.eps), outputs(1.0)
    same = [torch.equal(y, z) for y, z in zip(subject.outputs, near, strict=True)]
    return all(same) and not all(
        torch.equal(y, z) for y, z in zip(subject.outputs, far, strict=True)
    )


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
