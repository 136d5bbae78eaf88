"""When outputs and graph are dropped, everything that belongs to them is freed."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab._report import Level, Severity
from gradlab.subject import (
    FunctionClass,
    Mismatch,
    Subject,
    Tensors,
    functions,
    grad,
    graph_nodes,
    largest_entry,
)

from ._difference import listed

Refs = list["weakref.ref[Any]"]


@dataclass(frozen=True)
class KeepsNothing:
    """After `del y` the graph behind y is gone, without the garbage collector.

    And what the backward needs is in `ctx.saved_tensors`, not in attributes of ctx:
    only there do saved-tensor hooks, offloading and checkpointing see it, and only
    there is it noticed when someone writes to an input or output in between. A tensor
    that the forward made for itself nobody else can write to: that is a note.
    """

    level: Level = "contract"
    attribute: Severity = "warning"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch for what is kept alive, and for tensors on ctx."""
        if not functions(subject):
            return
        kept: dict[FunctionClass, dict[str, bool]] = {}
        was = gc.isenabled()
        gc.disable()
        try:
            refs = _probe(subject, kept, backward=False)
            sizes = []
            for _ in range(3):
                refs += _probe(subject, kept, backward=True)
                sizes.append(_sizes(functions(subject)))
            why = _held(subject, refs) if any(ref() is not None for ref in refs) else ""
        finally:
            if was:
                gc.enable()
        if why:
            yield Mismatch(
                "keeps_nothing",
                "warning",
                f"the graph is not freed when its outputs are: {why}",
                hint="save outputs by save_for_backward, which does not hold them; "
                "keep nothing on the class, the module or a global",
                subject=subject,
            )
        for where, (a, b, c) in _rows(sizes):
            if a < b < c:
                yield Mismatch(
                    "keeps_nothing",
                    "warning",
                    f"{where} grows with every run, and holds tensors",
                    hint="keep nothing on the class or in a global, or bound it",
                    subject=subject,
                )
        for cls, names in kept.items():
            heavy = [name for name, counts in names.items() if counts]
            yield Mismatch(
                "keeps_nothing",
                self.attribute if heavy else "note",
                f"{cls.__name__} keeps tensors as attributes of ctx: "
                f"{', '.join(f'ctx.{name}' for name in heavy or names)}",
                verdict="fragile" if heavy else "correct",
                hint="save_for_backward takes any tensor, so that hooks, checkpointing "
                "and offloading see it",
                subject=subject,
            )


def _probe(
    subject: Subject, kept: dict[FunctionClass, dict[str, bool]], backward: bool
) -> Refs:
    """Runs, drops everything and returns weak references to what must be gone."""
    leaves = subject.fresh()
    ys = subject.run(leaves)
    nodes = [node for node in graph_nodes(ys) if hasattr(node, "_forward_cls")]
    refs: Refs = [weakref.ref(node) for node in nodes]
    refs += [weakref.ref(y) for y in ys]
    shared = {_address(x) for x in (*leaves, *ys)}
    for node in nodes:
        for name, value in vars(node).items():
            if tensors := _tensors(value):
                names = kept.setdefault(node._forward_cls, {})
                heavy = any(_counts(t) and _is_shared(t, shared) for t in tensors)
                names[name] = names.get(name, False) or heavy
    if backward:
        grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])
    return refs


def _held(subject: Subject, refs: Refs) -> str:
    """Who still holds it; empty where the next call lets go of it."""
    elsewhere = [0.9 * x + 0.05 * (largest_entry(x) or 1.0) for x in subject.tensors]
    subject.run(subject.fresh(elsewhere))
    if all(ref() is None for ref in refs):
        return ""
    gc.collect()
    held = [ref() for ref in refs if ref() is not None]
    if not held:
        return "it is in a reference cycle, an output on its own ctx, say"
    kinds = listed("an output" if isinstance(x, Tensor) else "a ctx" for x in held)
    return f"something outside holds {kinds} for good"


def _sizes(classes: tuple[FunctionClass, ...]) -> dict[str, int]:
    """How many things are in each container on the classes and in their modules."""
    found = {}
    for cls in classes:
        module = getattr(cls.forward, "__globals__", {})
        spaces = {owner.__name__: vars(owner) for owner in cls.__mro__}
        for place, space in {**spaces, cls.__module__: module}.items():
            for name, value in space.items():
                bag = isinstance(value, (list, dict, set, deque))
                if bag and not name.startswith("__") and _tensors(value):
                    found[f"{place}.{name}"] = len(value)
    return found


def _rows(sizes: list[dict[str, int]]) -> Iterator[tuple[str, list[int]]]:
    for where in sizes[-1]:
        yield where, [size.get(where, 0) for size in sizes]


def _tensors(value: Any) -> Tensors:
    """The tensors in an attribute of ctx, also in one list, tuple or dict."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple, set, deque)):
        return tuple(v for v in value if isinstance(v, Tensor))
    return (value,) if isinstance(value, Tensor) else ()


def _is_shared(tensor: Tensor, addresses: set[int]) -> bool:
    """Whether it is an input or an output: made in forward, it requires no grad."""
    return tensor.requires_grad or _address(tensor) in addresses


def _address(tensor: Tensor) -> int:
    """Where its memory begins; its own identity where it has none of its own."""
    if tensor.layout != torch.strided:
        return id(tensor)
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _counts(tensor: Tensor) -> bool:
    """Masks, indices and single numbers on ctx are common, and cost little."""
    floats = tensor.is_floating_point() or tensor.is_complex()
    if tensor.layout != torch.strided:
        return floats
    kept = tensor.untyped_storage().nbytes() // tensor.element_size()
    return floats and min(tensor.numel(), kept) > 1
