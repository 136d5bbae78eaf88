"""Puts back what a forward changes beside its result."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Generators(NamedTuple):
    """The states of the random generators that a forward on a device draws from."""

    device: torch.device
    cpu: Tensor
    own: Tensor | None


def get_generators(device: torch.device) -> Generators:
    """Read the generators.

    Args:
        device: Where the model is.
    """
    own = None
    if device.type not in ("cpu", "meta"):
        own = torch.get_device_module(device).get_rng_state(device)
    return Generators(device, torch.get_rng_state(), own)


def set_generators(generators: Generators) -> None:
    """Set the generators to what they were.

    Args:
        generators: What `get_generators` returned.
    """
    torch.set_rng_state(generators.cpu)
    if generators.own is not None:
        module = torch.get_device_module(generators.device)
        module.set_rng_state(generators.own, generators.device)


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back attributes and hooks of all modules, and all random generators.

    Inside, gradlab's own hooks are off. Parameters and buffers are not looked after.

    Args:
        model: The model.
    """
    kept = [_Attributes(module) for module in model.modules()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    generators, python = get_generators(device), random.getstate()
    numpy = sys.modules.get("numpy")
    legacy = None if numpy is None else numpy.random.get_state()
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]
    try:
        yield
    finally:
        for attributes in kept:
            attributes.put_back()
        set_generators(generators)
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(legacy)


class _Attributes:
    """The attributes of one module; lists, dicts, sets and tensors with their content.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._values = dict(vars(module))
        self._contents = {
            name: value.copy()
            for name, value in self._values.items()
            if isinstance(value, (list, dict, set))
        }
        self._tensors = {
            name: value.detach().clone()
            for name, value in self._values.items()
            if isinstance(value, Tensor)
        }

    def put_back(self) -> None:
        vars(self._module).clear()
        vars(self._module).update(self._values)
        for name, content in self._contents.items():
            # In place: others hold the same list, as the handle of a hook does.
            value: Any = self._values[name]
            if isinstance(value, list):
                value[:] = content
            else:
                value.clear()
                value.update(content)
        for name, before in self._tensors.items():
            now = self._values[name].detach()
            if not torch.equal(now, before):
                now.data.copy_(before)


def _is_ours(hook: Any) -> bool:
    owner = getattr(hook, "__self__", hook)
    module = getattr(owner, "__module__", "")
    return module.split(".")[0] == __name__.split(".")[0]
