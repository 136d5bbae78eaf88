"""From what a user passes to `gradcheck` to a `Subject`, or to a clear error.

A Module's parameters and buffers join its inputs; everything floating point is computed
in float64 where the function allows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ._arguments import (
    Inputs,
    callable_and_title,
    describe,
    differentiable_places,
    labels_of,
    names_of,
    parameter_names,
    same_device,
    split_arguments,
    takes_ctx,
)
from ._functions import Call
from ._lent import lender, with_parameters
from ._mismatch import Crash, attempt
from ._random_state import RandomState
from ._subject import Subject


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
    call, title = callable_and_title(fn)
    if reference is not None and not isinstance(reference, torch.nn.Module):
        reference = _reference(reference)
    args, options = split_arguments(inputs, kwargs)
    names = names_of(fn, args, options)
    owned = 0
    if isinstance(fn, torch.nn.Module):
        call, args, reference, own = with_parameters(fn, args, reference)
        names = [*own, *names]
        owned = len(own)
    leaves, spec = pytree.tree_flatten((tuple(args), dict(options)))
    modules = tuple(m for m in (fn, *leaves) if isinstance(m, torch.nn.Module))
    lend, lent = lender(modules, leaves)
    labels = labels_of(names, args, options)
    same_device(leaves, labels)
    places = differentiable_places(leaves, labels, title)

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
    subject = _first_run(subject)
    if subject.reference is not None:
        _run_reference(subject)
    return subject


def _reference(reference: Any) -> Callable[..., Any]:
    if not callable(reference):
        raise TypeError(
            f"reference must be a differentiable callable of the same arguments, got "
            f"{type(reference).__name__}"
        )
    return callable_and_title(reference)[0]


def _run_reference(subject: Subject) -> None:
    with torch.no_grad():
        own = [x.clone() for x in subject.tensors]
        outputs = attempt(lambda: subject.run(own, subject.reference))
    if isinstance(outputs, Crash):
        raise ValueError(
            "reference must run on the inputs of fn, got the same arguments and raised "
            f"{outputs}"
        ) from outputs.error
    if not outputs:
        raise TypeError("reference must return a floating point tensor, as fn does")


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
    names = parameter_names(call.function.forward, skip=takes_ctx(call.function))
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
    for candidate in (subject, _cloning(subject)) if places else ():
        runs = attempt(lambda one=candidate: any(one.differentiable))
        if not isinstance(runs, Crash):
            return candidate if runs else None
    return None


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


def _detached(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _widened(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_complex():
        return leaf.to(torch.complex128)
    return leaf.to(torch.float64) if leaf.is_floating_point() else leaf
