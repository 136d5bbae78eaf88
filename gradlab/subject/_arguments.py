"""The arguments of a check: what is called, with what, under which names.

Everything that a user can get wrong about them is said here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


def describe(value: Any) -> str:
    """Shape and dtype of a tensor, or the value.

    Args:
        value: Anything.
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = repr(value)
    return text if len(text) < 40 else f"{type(value).__name__}"


def callable_and_title(fn: Any) -> tuple[Callable[..., Any], str]:
    if isinstance(fn, type) and issubclass(fn, torch.autograd.Function):
        return getattr(fn, "call", fn.apply), fn.__name__
    if isinstance(fn, torch.jit.ScriptModule):
        raise TypeError(
            "fn must be a Module whose forward is Python, got a ScriptModule: check "
            "the Module that it was made from"
        )
    if isinstance(fn, torch.nn.Module):
        for name, tensor in (*fn.named_parameters(), *fn.named_buffers()):
            if torch.nn.parameter.is_lazy(tensor):
                raise ValueError(
                    f"parameters must have a shape: {name} of {type(fn).__name__} gets "
                    "one in the first forward; run that once before"
                )
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


def split_arguments(
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


def names_of(fn: Any, args: Sequence[Any], options: Mapping[str, Any]) -> list[str]:
    if isinstance(fn, torch.nn.Module):
        found = parameter_names(fn.forward)
    else:
        cls = fn if isinstance(fn, type) else getattr(fn, "__self__", None)
        if isinstance(cls, type) and issubclass(cls, torch.autograd.Function):
            found = parameter_names(cls.forward, skip=takes_ctx(cls))
        else:
            found = parameter_names(fn)
    names = [n for n in found if n not in options][: len(args)]
    names += [f"inputs[{i}]" for i in range(len(names), len(args))]
    return [*names, *options]


def parameter_names(function: Any, skip: bool = False) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return [p.name for p in parameters if p.kind in positional][int(skip) :]


def takes_ctx(cls: type) -> bool:
    return cls.setup_context is torch.autograd.Function.setup_context


def labels_of(
    names: Sequence[str], args: Sequence[Any], options: Mapping[str, Any]
) -> list[str]:
    labels = []
    for name, value in zip(names, [*args, *options.values()], strict=True):
        paths = [path for path, _ in pytree.tree_flatten_with_path(value)[0]]
        labels += [name + pytree.keystr(path) for path in paths]
    return labels


def same_device(leaves: Sequence[Any], labels: Sequence[str]) -> None:
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


def differentiable_places(
    leaves: Sequence[Any], labels: Sequence[str], title: str
) -> tuple[int, ...]:
    places = []
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not leaf.requires_grad:
            continue
        if leaf.layout != torch.strided:
            raise ValueError(f"inputs must be dense: {labels[i]} is {leaf.layout}")
        if not bool(torch.isfinite(leaf).all()):
            raise ValueError(
                f"inputs must be finite where they are differentiated: {labels[i]} has "
                f"{int((~torch.isfinite(leaf)).sum())} NaN or infinite entries of "
                f"{leaf.numel()}"
            )
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
