"""What is seen of a setting: runs with and without a monitor, and what is left."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ._run import Run, Setting, ended


@dataclass(frozen=True)
class Evidence:
    """What was seen of a setting.

    Attributes:
        watched: The run with a monitor, which has let go.
        short: A few steps, watched, with outputs retained.
        states: What the runs without and with it came to.
        twins: What copies of the two came to, made while the one was watched.
        left: The hooks and attributes on the two in the end.
        heard: How many snapshots the training of copies led to.
        said: What watching warned of.
        folder: Where its event file is.
    """

    watched: Run
    short: Run
    states: tuple[dict[str, Any], dict[str, Any]]
    twins: tuple[dict[str, Any], dict[str, Any]]
    left: tuple[set[str], set[str]]
    heard: int
    said: list[str]
    folder: Path


def gather(setting: Setting, folder: Path, steps: int) -> Evidence:
    """Train with and without a monitor, and with retained outputs."""
    with said() as unwatched, ended(Run(setting, steps)) as plain:
        plain.train()
        state, left = plain.state(), left_on(plain)
        twins = trained(plain)
    with said() as messages, ended(Run(setting, steps)) as watched:
        watched.watch(folder)
        watched.train()
        states = state, watched.state()
        count = len(watched.snapshots)
        of_watched = trained(watched)
        heard = len(watched.snapshots) - count
        watched.end()
        leftovers = left, left_on(watched)
    with said(), ended(Run(setting, 8, retain=True)) as short:
        short.watch(folder / "short")
        short.train()
    news = [text for text in messages if text not in unwatched]
    return Evidence(
        *(watched, short, states, (twins, of_watched), leftovers, heard, news, folder)
    )


def trained(run: Run) -> dict[str, Any]:
    """What becomes of copies that are trained on."""
    results: dict[str, Any] = {}
    for name, twin in run.twins().items():
        try:
            if isinstance(twin, Exception):
                raise twin
            twin.train()
            results[name] = twin.state()
        except Exception as error:
            # As torch's LBFGS and FSDP2. Not the text: it may name an address.
            results[name] = f"no copy: {type(error).__name__}"
    return results


OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def left_on(run: Run) -> set[str]:
    """Attributes and hooks of the model, its parameters and the optimizers."""
    things: dict[str, Any] = dict(run.model.named_modules())
    things |= {f"parameter {n}": p for n, p in run.model.named_parameters()}
    things |= {f"optimizer {i}": o for i, o in enumerate(run.optimizers)}
    found: list[str] = []
    for name, thing in things.items():
        for key, value in vars(thing).items():
            hooks = len(value) if "hook" in key and hasattr(value, "__len__") else ""
            found.append(f"{name}.{key} {hooks}")
        if isinstance(thing, Tensor):
            found += [f"{name}.{k} {len(getattr(thing, k) or ())}" for k in OF_TENSORS]
        if isinstance(thing, Optimizer):
            found.append(f"{name}.step is {thing.step.__qualname__}")
    return set(found)


@contextmanager
def said() -> Iterator[list[str]]:
    """The warnings within."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts.extend(str(warning.message) for warning in caught)


def difference(one: Any, other: Any, where: str = "state") -> str | None:
    """Where two states differ bitwise, or None."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return None if bits(one) == bits(other) else where
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"keys of {where}"
        pairs = [(f"{where}.{key}", one[key], other[key]) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return f"length of {where}"
        pairs = [
            (f"{where}.{i}", *pair)
            for i, pair in enumerate(zip(one, other, strict=True))
        ]
    elif isinstance(one, np.ndarray):
        return None if one.tobytes() == other.tobytes() else where
    else:
        same_nan = one != one and other != other
        return None if one == other or same_nan else f"{where}: {one} and {other}"
    found = (difference(a, b, place) for place, a, b in pairs)
    return next((text for text in found if text is not None), None)


def bits(tensor: Any) -> tuple[Any, ...]:
    """What makes two tensors the same, the sign of a zero and NaN included."""
    kind = (tensor.dtype, tuple(tensor.shape), str(tensor.layout))
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    flat = tensor.detach().contiguous().reshape(-1)
    return (*kind, flat.view(torch.uint8).numpy().tobytes())
