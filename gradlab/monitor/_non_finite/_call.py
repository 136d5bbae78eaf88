"""One forward of a module, as it is kept to be run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._watched import _tensors as tensors_of
from ._untouched import Generators

Autocast = tuple[str, bool, torch.dtype]
"""A device type, whether autocast is on for it, and its dtype."""


@dataclass(eq=False)
class Call:
    """One forward of a module, and the gradients that came back to its outputs.

    Attributes:
        path: The path of the module in the model.
        args: Its arguments; the tensors themselves, no copies.
        kwargs: Its arguments by name.
        versions: How often each tensor among them had been changed in place.
        generators: The random generators before it; None takes them as they are.
        autocast: The autocast it ran under.
        buffers: The buffers of the model before it, with how often each had been
            changed in place; None if nothing has run since.
        grads: The gradient of each output, by its place among the tensors.
    """

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: tuple[int, ...] = ()
    generators: Generators | None = None
    autocast: tuple[Autocast, ...] = ()
    buffers: Sequence[tuple[Tensor, int]] | None = None
    grads: dict[int, Tensor] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return list(tensors_of((*self.args, self.kwargs)))

    @property
    def versions_now(self) -> tuple[int, ...]:
        """How often each tensor among the arguments was changed in place by now."""
        return tuple(map(version_of, self.inputs))

    @property
    def changed(self) -> bool:
        """Whether an argument was changed in place since."""
        return self.versions != self.versions_now

    def found(self, buffer: Tensor) -> bool:
        """Whether a buffer is as the call found it, as far as torch counts changes.

        Args:
            buffer: A buffer, as it is now.
        """
        if self.buffers is None:
            return True
        now = version_of(buffer)
        return any(one is buffer and then == now for one, then in self.buffers)

    def name_of(self, place: int) -> str:
        """What a tensor among the arguments is called: its place, or its keyword.

        Args:
            place: Its place among the tensors.
        """
        named = {f"input {i}": one for i, one in enumerate(self.args)} | self.kwargs
        for name, one in named.items():
            count = len(list(tensors_of(one)))
            if place < count:
                return name if count == 1 else f"{name} (tensor {place} of {count})"
            place -= count
        return "an input"


def version_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place; -1 if nobody counts.

    Args:
        tensor: Any tensor.
    """
    return -1 if tensor.is_inference() else tensor._version
