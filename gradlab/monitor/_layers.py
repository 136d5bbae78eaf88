"""The layers of a model: the modules that own trainable parameters."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._snapshot import Kind, Row

Leaf = tuple[str, tuple[int, ...] | None]
Names = tuple[tuple[str, tuple[Leaf, ...]], ...]
"""Module paths, and the names and shapes of what each module owns."""


class Layers(NamedTuple):
    """The trainable part of a model, in the order of its modules.

    Attributes:
        layers: One row a module that owns trainable parameters.
        sizes: How many it owns; a child's are the child's.
        rows: One row a parameter, layer after layer.
        parameters: The parameters of these rows.
    """

    layers: tuple[Row, ...]
    sizes: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: list[Tensor]


def trainable_layers(model: nn.Module, only: Collection[int] | None = None) -> Layers:
    """The layers with a parameter that requires a gradient.

    The model is walked anew at each reading, so that what is frozen, unfrozen, added or
    materialized between two steps is followed. A tied parameter belongs to the first
    layer that owns it.

    Args:
        model: The model.
        only: Identities of the parameters to keep; None keeps all.
    """
    names: list[tuple[str, tuple[Leaf, ...]]] = []
    parameters: list[Tensor] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        owned: list[Leaf] = []
        for leaf, parameter in module._parameters.items():
            if parameter is None or not parameter.requires_grad:
                continue
            key = id(parameter)
            if key not in seen and (only is None or key in only):
                seen.add(key)
                owned.append(
                    (leaf, None if is_lazy(parameter) else tuple(parameter.shape))
                )
                parameters.append(parameter)
        if owned:
            names.append((path, tuple(owned)))
    layers, rows = _rows(tuple(names))
    return Layers(layers, tuple(len(owned) for _, owned in names), rows, parameters)


# The names seldom change between two readings: the rows are then the same objects.
@lru_cache(maxsize=32)
def _rows(names: Names) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    taken = {"total", "root"}
    layers: list[Row] = []
    rows: list[Row] = []
    for path, owned in names:
        layer = _unique(path, "layer", taken) if path else "root"
        layers.append(Row(layer, "layer"))
        for leaf, shape in owned:
            name = f"{layer}.{leaf}" if path else leaf
            rows.append(Row(_unique(name, "parameter", taken), "parameter", shape))
    return tuple(layers), tuple(rows)


def _unique(name: str, kind: Kind, taken: set[str]) -> str:
    """The name, or one that says what it names where the name is taken.

    A slash separates the segments of a tag, so it cannot stay in a name.
    """
    name = name.replace("/", ":")
    while name in taken:
        name = f"{name} ({kind})"
    taken.add(name)
    return name
