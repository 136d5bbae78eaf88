"""Names for a number that a backward has too much or too little of.

A factor of 0.2 tells nothing; "1/N with N = 5 (x.shape[0])" says where to look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gradlab.subject import Subject

_FIXED = {
    2.0: "2",
    0.5: "1/2",
    math.sqrt(2.0): "√2",
    math.sqrt(0.5): "1/√2",
    math.log(2.0): "ln 2",
    1 / math.log(2.0): "1/ln 2",
    math.pi: "π",
    1 / math.pi: "1/π",
    2 / math.pi: "2/π",
    2 * math.pi: "2π",
    math.sqrt(2 * math.pi): "√(2π)",
    1 / math.sqrt(2 * math.pi): "1/√(2π)",
    2 / math.sqrt(math.pi): "2/√π",
}


def name_constant(c: float, subject: Subject, tolerance: float = 1e-6) -> str:
    """Says what a number is, by the numbers of the call.

    Args:
        c: The number; its sign is not named.
        subject: The function and its arguments.
        tolerance: The relative error of `c`.

    Returns:
        As "1/N with N = 5 (x.shape[0])"; empty where nothing simple has this value.
    """
    c = abs(c)

    def near(value: float) -> bool:
        return math.isfinite(value) and abs(c - value) <= tolerance * c

    if near(1.0):
        return ""
    candidates = [
        *_of_numbers(subject),
        *((value, text) for value, text in _FIXED.items()),
        *_of_sizes(subject),
    ]
    for value, text in candidates:
        if near(value):
            return text
    sizes = list(_sizes(subject))
    for p, above in sizes:
        for q, below in sizes:
            if q and near(p / q):
                return f"{p}/{q}, {above} over {below}"
    for q in range(2, 13):
        if near(round(c * q) / q) and 0 < round(c * q) <= 24:
            return f"{round(c * q)}/{q}"
    return ""


def _of_numbers(subject: Subject) -> Iterator[tuple[float, str]]:
    """Powers of the Python numbers and of the one-element tensors in the call."""
    for leaf, name in zip(subject.leaves, subject.names, strict=True):
        if isinstance(leaf, Tensor):
            if leaf.numel() != 1 or leaf.is_complex() or leaf.dtype == torch.bool:
                continue
            a = abs(float(leaf))
        elif isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
            a = abs(float(leaf))
        else:
            continue
        if a in (0.0, 1.0) or not math.isfinite(a):
            continue
        value = f"{name} = {a:g}"
        yield a, value
        yield 1 / a, f"1/{name} with {value}"
        yield a * a, f"{name}² with {value}"
        yield 1 / a**2, f"1/{name}² with {value}"
        yield math.sqrt(a), f"√{name} with {value}"
        yield 1 / math.sqrt(a), f"1/√{name} with {value}"
        if a < 1:
            yield 1 - a, f"1 − {name} with {value}"
            yield 1 / (1 - a), f"1/(1 − {name}) with {value}"


def _of_sizes(subject: Subject) -> Iterator[tuple[float, str]]:
    """1/N, √d, n/(n − 1) of every length and count in the call, plain ones first."""
    sizes = list(_sizes(subject))
    for n, what in sizes:
        yield n, f"N = {n} ({what})"
        yield 1 / n, f"1/N with N = {n} ({what})"
    for n, what, of, whole in _ignored(subject):
        yield n / of, f"{n}/{of}, {what} over {whole}"
        yield of / n, f"{of}/{n}, {whole} over {what}"
    for n, what in sizes:
        yield math.sqrt(n), f"√d with d = {n} ({what})"
        yield 1 / math.sqrt(n), f"1/√d with d = {n} ({what})"
        if n > 1:
            # Small fractions have many parents: name one without insisting on it.
            yield n / (n - 1), f"{n}/{n - 1}, as n/(n − 1) of n = {n} ({what}) would be"
            yield (n - 1) / n, f"{n - 1}/{n}, as (n − 1)/n of n = {n} ({what}) would be"
    for n, what in sizes:
        yield n * n, f"N² with N = {n} ({what})"
        yield 1 / n**2, f"1/N² with N = {n} ({what})"


def _ignored(subject: Subject) -> Iterator[tuple[int, str, int, str]]:
    """How many entries of an integer input are not masked, and of how many.

    A negative target is one to ignore; a mask is a mask.
    """
    for t, name in zip(subject.leaves, subject.names, strict=True):
        if not isinstance(t, Tensor) or t.is_floating_point() or t.is_complex():
            continue
        kept, what = (
            (t, f"the count of {name}")
            if t.dtype == torch.bool
            else (t >= 0, f"the count of {name} >= 0")
        )
        if 0 < (n := int(kept.sum())) < t.numel():
            yield n, what, t.numel(), f"{name}.numel()"


def _sizes(subject: Subject) -> Iterator[tuple[int, str]]:
    """Every length and count in the call that is not 1, each number once."""
    seen = {0, 1}

    def new(n: int) -> bool:
        fresh = n not in seen
        seen.add(n)
        return fresh

    tensors = [
        (leaf, name)
        for leaf, name in zip(subject.leaves, subject.names, strict=True)
        if isinstance(leaf, Tensor)
    ]
    outputs = [(y, "output") for y in subject.outputs]
    for t, name in tensors + outputs:
        for dim, n in enumerate(t.shape):
            if new(n):
                yield n, f"{name}.shape[{dim}]"
    for t, name in tensors:
        if t.is_floating_point() or t.is_complex() or not t.numel():
            continue
        values, counts = (u.tolist() for u in torch.unique(t, return_counts=True))
        if len(values) > 16:
            continue
        for value, count in zip(values, counts, strict=True):
            for n, sign in ((t.numel() - count, "!="), (count, "==")):
                if new(n):
                    yield n, f"the count of {name} {sign} {value}"
    for t, name in tensors + outputs:
        if new(t.numel()):
            yield t.numel(), f"{name}.numel()"
