"""The plain way to know activations: keep every output and every gradient of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

Pair = tuple[Tensor, Tensor]


class Retained:
    """Keeps each output that a gradient comes back to, with that gradient.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.pairs: dict[str, list[Pair]] = {}
        self._handles = [
            module.register_forward_hook(self._hook(path or "root"))
            for path, module in model.named_modules()
        ]

    def take(self, scale: float = 1.0) -> dict[str, tuple[float, float]]:
        """Gradient and output rms by module since the last time."""
        pairs, self.pairs = self.pairs, {}
        return {
            name: (rms([g for _, g in kept]) / scale, rms([y for y, _ in kept]))
            for name, kept in pairs.items()
        }

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        @_disable_dynamo
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            # A model in evaluation mode is not watched.
            tensor = carrier(output) if module.training else None
            if tensor is not None:
                value = tensor.detach().clone()
                tensor.register_hook(lambda g: self._keep(name, value, g))

        return keep

    def _keep(self, name: str, value: Tensor, grad: Tensor) -> None:
        self.pairs.setdefault(name, []).append((value, grad.detach().clone()))


def carrier(output: Any) -> Tensor | None:
    """The first tensor in an output that a gradient goes back through."""
    if isinstance(output, Tensor):
        return output if output.requires_grad else None
    if isinstance(output, dict):
        output = output.values()
    elif hasattr(output, "__dataclass_fields__"):
        output = vars(output).values()
    found = map(carrier, output)
    return next((tensor for tensor in found if tensor is not None), None)


def rms(tensors: list[Tensor]) -> float:
    flat = torch.cat([t.abs().double().flatten() for t in tensors])
    return flat.square().mean().sqrt().item()
