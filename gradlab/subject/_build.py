"""From what a user passes to `gradcheck` to a `Subject`, or to a clear error.

A Module's parameters and buffers join its inputs; everything floating point is computed
in float64 where the function allows it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ._functions import Call
from ._mismatch import Crash, attempt
from ._random_state import RandomState
from ._subject import Subject

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


def build(
    fn: Any,
    inputs: Inputs,
    *,
    kwargs: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
) -> Subject:
    """Makes a `Subject` of a function and its inputs, and runs it once.

    Args:
        fn: A callable, an `autograd.Function` subclass or a Module.
        inputs: A tensor, a sequence of arguments, or a mapping of keyword arguments.
        kwargs: Keyword arguments beside them.
        reference: A callable of the same arguments.
        seed: Seed of all random directions.

    Returns:
        The subject, in float64 if it runs there.

    Raises:
        TypeError: When an argument is of the wrong kind.
        ValueError: When nothing can be differentiated, or `fn` raises.
    """
    call, title = _callable(fn)
    args, options = _arguments(inputs, kwargs)
    names = _names(fn, args, options)
    owned = 0
    if isinstance(fn, torch.nn.Module):
        call, args, reference, own = _with_parameters(fn, args, reference)
        names = [*own, *names]
        owned = len(own)
    leaves, spec = pytree.tree_flatten((tuple(args), dict(options)))
    modules = tuple(m for m in (fn, *leaves) if isinstance(m, torch.nn.Module))
    lend, lent = _lender(modules, leaves)
    labels = _labels(names, args, options)
    _same_device(leaves, labels)
    places = _places(leaves, labels, title)

    def flat(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*leaves: Any) -> Any:
            if modules:
                lend(leaves)
            args, options = pytree.tree_unflatten(list(leaves), spec)
            return function(*args, **options)

        return run

    subject = Subject(
        title,
        flat(call),
        tuple(_detached(leaf) for leaf in leaves),
        tuple(labels),
        places,
        RandomState(),
        seed,
        reference=None if reference is None else flat(reference),
        owned=owned,
        lent=lent,
        modules=modules,
    )
    return _first_run(subject)


def subject_of(call: Call, template: Subject) -> Subject | None:
    """A recorded application of a Function as a subject of its own.

    Args:
        call: The application.
        template: The subject it was recorded in.

    Returns:
        The subject; None where nothing in it can be differentiated.
    """
    places = tuple(i for i, needed in enumerate(call.needed) if needed)
    modules = tuple(a for a in call.args if isinstance(a, torch.nn.Module))
    if modules:
        return None  # whose parameters are not these arguments
    names = _parameters(call.function.forward, skip=_takes_ctx(call.function))
    names += [f"input {i}" for i in range(len(names), len(call.args))]
    subject = Subject(
        call.function.__name__,
        call.function.apply,
        call.args,
        tuple(names[: len(call.args)]),
        places,
        template.random_state,
        template.seed,
        template.single,
    )
    return subject if places and any(subject.differentiable) else None


def _first_run(subject: Subject) -> Subject:
    """Runs once, in float64 if possible; says clearly what prevents it."""
    wide = subject.at(tuple(map(_widened, subject.leaves)))
    error: Exception | None = None
    for candidate in (wide, _cloning(wide), subject, _cloning(subject)):
        try:
            if any(candidate.differentiable):
                candidate = _where_backward_runs(candidate, subject)
                return candidate if not _single(candidate) else _as_single(candidate)
            candidate.__dict__.pop("differentiable")
            outputs = pytree.tree_leaves(candidate.call(*candidate.leaves))
        except Exception as caught:
            error = caught
            continue
        if not any(isinstance(y, Tensor) for y in outputs):
            got = ", ".join(sorted({type(y).__name__ for y in outputs})) or "nothing"
            raise TypeError(
                f"fn must return a tensor, or a container with one; {subject.title} "
                f"returned {got}"
            )
        kinds = ", ".join(str(y.dtype) for y in outputs if isinstance(y, Tensor))
        raise ValueError(
            f"fn must be differentiable: no output of {subject.title} requires grad "
            f"although its inputs do (outputs: {kinds}). Does it detach, leave grad "
            "mode or compute with NumPy? Put that into an autograd.Function"
        )
    described = ", ".join(
        f"{name}: {describe(leaf)}"
        for name, leaf in zip(subject.names, subject.leaves, strict=True)
    )
    raise ValueError(
        f"fn must run on the inputs it is checked with: {subject.title} raised "
        f"{type(error).__name__}: {error}\nIt was called with {described}"
    ) from error


def _where_backward_runs(wide: Subject, given: Subject) -> Subject:
    """In the dtypes given, where they alone suit the backward."""
    if wide.dtype != given.dtype and isinstance(attempt(lambda: wide.gradients), Crash):
        narrow = dataclasses.replace(given, call=wide.call)
        if not isinstance(attempt(lambda: narrow.gradients), Crash):
            return narrow
    return wide


def describe(value: Any) -> str:
    """Shape and dtype of a tensor, or the value.

    Args:
        value: Anything.
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = repr(value)
    return text if len(text) < 40 else f"{type(value).__name__}"


def _cloning(subject: Subject) -> Subject:
    """For a function that writes to its inputs: a leaf may not be written to."""

    def call(*args: Any) -> Any:
        return subject.call(*(a.clone() if isinstance(a, Tensor) else a for a in args))

    return dataclasses.replace(subject, call=call)


def _single(subject: Subject) -> bool:
    """Whether every forward value is a float32, and no output a step function."""
    if subject.dtype != torch.float64:
        return False
    with torch.no_grad():
        ys = subject.run([x.clone() for x in subject.tensors])
        if not all(_float32_valued(y) for y in ys):
            return False
        near = subject.run([x * (1 + 1e-3) + 1e-3 for x in subject.tensors])
    return any(
        y.shape != z.shape or not torch.equal(y, z)
        for y, z in zip(ys, near, strict=True)
    ) and all(_float32_valued(z) for z in near)


def _float32_valued(y: Tensor) -> bool:
    y = torch.view_as_real(y) if y.is_complex() else y
    return torch.equal(y.float().to(y.dtype).nan_to_num(), y.nan_to_num())


def _as_single(subject: Subject) -> Subject:
    return dataclasses.replace(subject, single=True)


def _callable(fn: Any) -> tuple[Callable[..., Any], str]:
    if isinstance(fn, type) and issubclass(fn, torch.autograd.Function):
        return getattr(fn, "call", fn.apply), fn.__name__
    if isinstance(fn, torch.nn.Module):
        return fn, type(fn).__name__
    if not callable(fn) or isinstance(fn, type):
        raise TypeError(
            "fn must be a callable, an autograd.Function subclass or a Module, got "
            f"{fn if isinstance(fn, type) else type(fn).__name__}"
        )
    owner = getattr(fn, "__self__", None)
    if isinstance(owner, type):
        return fn, owner.__name__
    return fn, getattr(fn, "__name__", type(fn).__name__)


def _arguments(
    inputs: Inputs, kwargs: Mapping[str, Any] | None
) -> tuple[list[Any], dict[str, Any]]:
    options = dict(kwargs or {})
    if isinstance(inputs, Tensor):
        return [inputs], options
    if isinstance(inputs, Mapping):
        return [], {**inputs, **options}
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        return list(inputs), options
    raise TypeError(
        "inputs must be a tensor, a tuple of arguments or a dict of keyword arguments, "
        f"got {type(inputs).__name__}"
    )


def _names(fn: Any, args: Sequence[Any], options: Mapping[str, Any]) -> list[str]:
    if isinstance(fn, torch.nn.Module):
        found = _parameters(fn.forward)
    else:
        cls = fn if isinstance(fn, type) else getattr(fn, "__self__", None)
        if isinstance(cls, type) and issubclass(cls, torch.autograd.Function):
            found = _parameters(cls.forward, skip=_takes_ctx(cls))
        else:
            found = _parameters(fn)
    names = [n for n in found if n not in options][: len(args)]
    names += [f"inputs[{i}]" for i in range(len(names), len(args))]
    return [*names, *options]


def _parameters(function: Any, skip: bool = False) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return [p.name for p in parameters if p.kind in positional][int(skip) :]


def _takes_ctx(cls: type) -> bool:
    return cls.setup_context is torch.autograd.Function.setup_context


def _with_parameters(
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


def _lender(
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


def _labels(
    names: Sequence[str], args: Sequence[Any], options: Mapping[str, Any]
) -> list[str]:
    labels = []
    for name, value in zip(names, [*args, *options.values()], strict=True):
        paths = [path for path, _ in pytree.tree_flatten_with_path(value)[0]]
        labels += [name + pytree.keystr(path) for path in paths]
    return labels


def _same_device(leaves: Sequence[Any], labels: Sequence[str]) -> None:
    devices = {
        label: leaf.device
        for label, leaf in zip(labels, leaves, strict=True)
        if isinstance(leaf, Tensor) and leaf.ndim
    }
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{label} on {device}" for label, device in devices.items())
        raise ValueError(f"inputs must be on one device, got {places}")
    for label, device in devices.items():
        if device.type == "meta":
            raise ValueError(f"inputs must hold numbers: {label} is on the meta device")


def _places(
    leaves: Sequence[Any], labels: Sequence[str], title: str
) -> tuple[int, ...]:
    places = []
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not leaf.requires_grad:
            continue
        if leaf.layout != torch.strided:
            raise ValueError(f"inputs must be dense: {labels[i]} is {leaf.layout}")
        places.append(i)
    if places:
        return tuple(places)
    tensors = [
        f"{label} is {describe(leaf)} and does not require grad"
        if leaf.is_floating_point() or leaf.is_complex()
        else f"{label} is {describe(leaf)}, and integers have no gradient"
        for label, leaf in zip(labels, leaves, strict=True)
        if isinstance(leaf, Tensor)
    ]
    raise ValueError(
        f"at least one input of {title} must require grad: "
        + ("; ".join(tensors) if tensors else "there is no tensor among the inputs")
        + ". Pass what is to be differentiated as x.double().requires_grad_()"
    )


def _detached(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _widened(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_complex():
        return leaf.to(torch.complex128)
    return leaf.to(torch.float64) if leaf.is_floating_point() else leaf


@contextmanager
def undisturbed(functions: Iterable[Any] = ()) -> Iterator[None]:
    """Inside, gradients are on and nothing else is; afterwards all is as it was.

    Args:
        functions: What will be called. The Modules among them, bound to them or in
            their closures get their tensors and training flags back.
    """
    state = RandomState()
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
        if isinstance(candidate, torch.nn.Module):
            yield candidate


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
