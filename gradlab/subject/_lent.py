"""Modules while they are checked: their tensors are arguments, and given back after."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ._random_state import RandomState


def with_parameters(
    module: torch.nn.Module,
    args: Sequence[Any],
    reference: Callable[..., Any] | None,
) -> tuple[Any, list[Any], Any, list[str]]:
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    count = len(state)
    kept = list(state)

    def call(*args: Any, **options: Any) -> Any:
        return module(*args[count:], **options)

    if reference is None:
        return call, [*state.values(), *args], None, kept

    def expected(*args: Any, **options: Any) -> Any:
        if not isinstance(reference, torch.nn.Module):
            return reference(*args[count:], **options)
        named = dict(zip(kept, args[:count], strict=True))
        return torch.func.functional_call(reference, named, args[count:], options)

    return call, [*state.values(), *args], expected, kept


def lender(
    modules: Sequence[torch.nn.Module], leaves: Sequence[Any]
) -> tuple[Callable[[Sequence[Any]], None], frozenset[int]]:
    """What puts the arguments of a run into the Modules whose tensors they stand for.

    And which arguments these are. They stay there until the next run, since a backward
    may run the Module again. What is no argument follows the dtype; `undisturbed` puts
    all of it back.
    """
    index = {id(x): i for i, x in enumerate(leaves) if isinstance(x, Tensor)}
    slots: list[tuple[dict[str, Any], str, int]] = []
    others: list[tuple[dict[str, Any], str, Tensor]] = []
    for space in (s for m in modules for sub in m.modules() for s in _spaces(sub)):
        for key, tensor in space.items():
            if id(tensor) in index:
                slots.append((space, key, index[id(tensor)]))
            elif tensor is not None:
                others.append((space, key, tensor))

    def lend(given: Sequence[Any]) -> None:
        for space, key, i in slots:
            space[key] = given[i]
        dtypes = [x.dtype.to_real() for x in given if _inexact(x)]
        for space, key, tensor in others:
            moved = tensor.detach().clone()
            if _inexact(tensor) and dtypes:
                moved = moved.to(
                    dtypes[0].to_complex() if tensor.is_complex() else dtypes[0]
                )
            space[key] = moved.requires_grad_(tensor.requires_grad)

    return lend, frozenset(i for _, _, i in slots)


def _spaces(module: torch.nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers


def _inexact(value: Any) -> bool:
    return isinstance(value, Tensor) and (
        value.is_floating_point() or value.is_complex()
    )


@contextmanager
def undisturbed(functions: Iterable[Any] = ()) -> Iterator[None]:
    """Inside, gradients are on and nothing else is; afterwards all is as it was.

    Args:
        functions: What will be called. The Modules among them, bound to them or in
            their closures get their tensors and training flags back.
    """
    state, dtype = RandomState(), torch.get_default_dtype()
    owners = dict.fromkeys(m for fn in functions for m in _modules(fn))
    modules = dict.fromkeys(m for owner in owners for m in owner.modules())
    training = {m: m.training for m in modules}
    tensors = [(space, dict(space)) for m in modules for space in _spaces(m)]
    buffers = {b: b.clone() for m in modules for b in m.buffers(recurse=False)}
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            yield
    finally:
        state.restore()
        torch.set_default_dtype(dtype)
        for module, was in training.items():
            module.training = was
        for space, kept in tensors:
            space.clear()
            space.update(kept)
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)


def _modules(fn: Any) -> Iterator[torch.nn.Module]:
    inner = inspect.unwrap(getattr(fn, "func", fn))
    cells = (getattr(inner, "__closure__", None) or ()) if callable(inner) else ()
    code = getattr(inner, "__code__", None)
    names = code.co_names if code else ()
    known = getattr(inner, "__globals__", {})
    for candidate in (
        inner,
        getattr(inner, "__self__", None),
        *(cell.cell_contents for cell in cells if _filled(cell)),
        *(known[name] for name in names if name in known),
    ):
        script = isinstance(candidate, torch.jit.ScriptModule)
        if isinstance(candidate, torch.nn.Module) and not script:
            yield candidate


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
