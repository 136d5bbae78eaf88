"""A factor that differs from entry to entry is missing, or there once too often."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.subject import Mismatch, Subject, attempt

from ._evidence import Evidence, evidence

_SHAPES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "{}": lambda t: t,
    "{}²": lambda t: t * t,
    "1 − {}": lambda t: 1 - t,
    "1 + {}": lambda t: 1 + t,
    "1 − {}²": lambda t: 1 - t * t,
    "1 + {}²": lambda t: 1 + t * t,
    "{} (1 − {})": lambda t: t * (1 - t),
    "exp({})": torch.exp,
    "{}³": lambda t: t * t * t,
    "√{}": torch.sqrt,
    "|{}|": torch.abs,
    "sign({})": torch.sgn,
    "sigmoid({})": torch.sigmoid,
    "sin({})": torch.sin,
    "cos({})": torch.cos,
    "({} > 0)": lambda t: (t > 0).to(t.dtype),
    "({} < 0)": lambda t: (t < 0).to(t.dtype),
}


_PLAIN = ("{}", "{}²", "1 − {}", "1 − {}²", "exp({})")
"""What is tried on grad_output as well, which costs a backward each."""


@dataclass(frozen=True)
class ExtraFactor:
    """x̄ = f(t) true x̄, or f(t) x̄ = true x̄, or (∂y/∂x)ᵀ (f(t) ȳ), entry by entry.

    t is an input or an output, f one of t, t², 1 − t, exp t, ...; or another input w
    enters the gradient as 1 (not applied) or as w² (applied twice).
    """

    def __call__(self, mismatch: Mismatch) -> str | None:
        """Returns the cause, or None where it is another one."""
        seen = evidence(mismatch)
        if seen is None or seen.factor is not None:
            return None
        return _on_gradient(seen) or _on_grad_output(seen) or _on_operand(seen)


def _on_gradient(seen: Evidence) -> str | None:
    shape = seen.x.shape
    for what, factor in _factors(seen.subject, shape):
        if seen.explained_by(lambda i, f=factor: seen.expected[i] * f):
            if "sign" in what:
                return f"the gradient is {what} times the true one"
            return f"the gradient has a factor {what} too much"
        if _lacks(seen, factor):
            return f"the gradient lacks the factor {what}"
    return None


def _lacks(seen: Evidence, factor: Tensor) -> bool:
    """Whether x̄ · f is the true gradient, also where f vanishes."""
    big = factor.abs() > 1e-6 * factor.abs().max()
    if not bool(big.any()) or bool(((seen.expected[0] != 0) & ~big).any()):
        return False
    safe = torch.where(big, factor, 1)
    return seen.explained_by(
        lambda i: torch.where(big, seen.expected[i] / safe, seen.actual[i])
    )


def _on_grad_output(seen: Evidence) -> str | None:
    for j, v in enumerate(seen.cotangents[0]):
        for what, factor in _factors(seen.subject, v.shape, _PLAIN):
            for inverse in (False, True):
                if inverse and not bool((factor != 0).all()):
                    continue
                f = 1 / factor if inverse else factor

                def proposal(i: int, j: int = j, f: Tensor = f) -> Tensor | None:
                    cotangents = list(seen.cotangents[i])
                    cotangents[j] = cotangents[j] * f
                    return seen.true(cotangents)

                if seen.explained_by(proposal):
                    return f"the factor {what} " + (
                        "of grad_output is missing, or divided by"
                        if inverse
                        else "is applied once too often, to grad_output"
                    )
    return None


def _on_operand(seen: Evidence) -> str | None:
    for place, name in enumerate(seen.subject.input_names):
        if place == seen.place:
            continue
        if seen.at(place, torch.ones_like):
            return f"{name} is not applied: the gradient is the true one for {name} = 1"
        if seen.at(place, torch.zeros_like):
            return f"{name} is left out: the gradient is the true one for {name} = 0"
        if seen.at(place, torch.square):
            return f"{name} is applied twice: the gradient is the true one for {name}²"
        if seen.at(place, torch.neg):
            return (
                f"{name} has the wrong sign: the gradient is the true one for -{name}"
            )
        if seen.at(place, torch.reciprocal):
            return f"the gradient is the true one for 1/{name}: it divides by {name}"
    return None


def _factors(
    subject: Subject, shape: torch.Size, forms: Iterable[str] = _SHAPES
) -> Iterator[tuple[str, Tensor]]:
    """Functions of every input and output that broadcast to a shape."""
    tensors = [
        (name, leaf)
        for name, leaf in zip(subject.names, subject.leaves, strict=True)
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
    ]
    outputs = [f"output {j}" for j in range(len(subject.outputs))]
    outputs = ["output"] if len(outputs) == 1 else outputs
    tensors += list(zip(outputs, subject.outputs, strict=True))
    aligned = [
        (name, fit)
        for name, t in tensors
        if t.numel() > 1
        for fit in _aligned(t, shape)
    ]
    # Simple forms first: `output` rather than `exp(x)` where they are the same.
    for form in forms:
        for name, t in aligned:
            value = attempt(lambda f=_SHAPES[form], t=t: f(t))
            if not isinstance(value, Tensor) or not value.numel():
                continue
            varies = bool((value != value.reshape(-1)[0]).any())
            if varies and bool(torch.isfinite(value).all()):
                yield form.replace("{}", name), value


def _aligned(t: Tensor, shape: torch.Size) -> Iterator[Tensor]:
    """Broadcasts a tensor to a shape by its last dims, or by its first."""
    fits = attempt(lambda: t.expand(shape))
    if isinstance(fits, Tensor):
        yield fits
    if 0 < t.ndim < len(shape) and t.shape == shape[: t.ndim]:
        yield t.reshape(*t.shape, *[1] * (len(shape) - t.ndim)).expand(shape)
    if t.ndim == 1 and len(shape) > 2 and t.shape[0] == shape[1]:
        yield t.reshape(-1, *[1] * (len(shape) - 2)).expand(shape)
