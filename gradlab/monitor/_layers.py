"""The layers of a model: the modules that own trainable parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from .._snapshot import Kind, Row, Rows


class Wholes(NamedTuple):
    """Which part belongs to which row, a part once for each row it belongs to.

    Attributes:
        rows: How many rows there are.
        parts: Places of the parts.
        owners: The rows they are part of.
        count: How many entries each row has.
        available: Whether a row has a part.
    """

    rows: int
    parts: Tensor
    owners: Tensor
    count: Tensor
    available: Tensor

    @property
    def places(self) -> NDArray[np.int64]:
        """The places of the parts, on the same memory."""
        return self.parts.numpy()


@dataclass(frozen=True, eq=False)
class Layers:
    """The trainable part of a model: which parameter is part of which row.

    The rows of a snapshot are the total, the layers, the parameters layer after layer.

    Attributes:
        layers: One row a module that owns trainable parameters.
        sizes: How many it owns; a child's are the child's.
        rows: One row a parameter.
        parameters: The parameters of these rows.
        patterns: Globs on module paths: the layers to have rows; None is all. The total
            is over all, whatever they say.
        device: Where all parameters are; None if they are on several.
        lazy: Whether some have no shape yet.
        mesh: The device mesh of sharded parameters; None if all are whole.
    """

    layers: tuple[Row, ...]
    sizes: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: tuple[Tensor, ...]
    patterns: Sequence[str] | None = None
    numels: Tensor = field(init=False)
    parts: Tensor = field(init=False)
    owners: Tensor = field(init=False)
    kept: Tensor | None = field(init=False)
    device: torch.device | None = field(init=False)
    lazy: bool = field(init=False)
    mesh: Any = field(init=False)
    _named: dict[str, Rows] = field(init=False, default_factory=dict)
    _every: list[Wholes] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        layers, parameters = len(self.layers), len(self.parameters)
        owner = torch.arange(layers).repeat_interleave(
            torch.tensor(self.sizes, dtype=torch.long)
        )
        part = torch.arange(parameters)
        put = object.__setattr__
        numels = [0 if is_lazy(p) else p.numel() for p in self.parameters]
        put(self, "numels", torch.tensor(numels, dtype=torch.float64))
        # Each parameter is part of the total, of its layer, and of its own row.
        of_all = torch.zeros_like(part), 1 + owner, 1 + layers + part
        put(self, "parts", part.repeat(3))
        put(self, "owners", torch.cat(of_all))
        devices = {p.device for p in self.parameters}
        put(self, "device", devices.pop() if len(devices) == 1 else None)
        put(self, "lazy", any(is_lazy(p) for p in self.parameters))
        meshes = (getattr(p, "device_mesh", None) for p in self.parameters)
        put(self, "mesh", next((mesh for mesh in meshes if mesh is not None), None))
        put(self, "kept", self._fitting(owner.tolist()))

    def wholes(self, there: Sequence[int]) -> Wholes:
        """The rows that some of the parameters make.

        Args:
            there: Places of the parameters to go by.
        """
        every = len(there) == len(self.parameters)
        if every and self._every:
            return self._every[0]
        parts, owners, numels = self.parts, self.owners, self.numels
        if not every:
            where = torch.zeros(len(self.parameters), dtype=torch.long)
            where[list(there)] = torch.arange(1, 1 + len(there))
            has = where[parts] > 0
            parts, owners = where[parts[has]] - 1, owners[has]
            numels = numels[list(there)]
        rows = 1 + len(self.layers) + len(self.parameters)
        count = torch.zeros(rows, dtype=torch.float64)
        count.index_add_(0, owners, numels[parts])
        available = torch.zeros(rows, dtype=torch.bool)
        available[owners] = True
        wholes = Wholes(rows, parts, owners, count, available)
        if every:
            self._every.append(wholes)
        return wholes

    def _fitting(self, owner: Sequence[int]) -> Tensor | None:
        if self.patterns is None:
            return None
        patterns = self.patterns
        fits = [any(fnmatchcase(r.name, p) for p in patterns) for r in self.layers]
        return torch.tensor([True, *fits, *(fits[o] for o in owner)]).nonzero()[:, 0]

    def named(self, total: str) -> tuple[Row, ...]:
        """All rows; the same objects each time.

        Args:
            total: The name of the total row.
        """
        if total not in self._named:
            rows = (Row(total, "total"), *self.layers, *self.rows)
            if self.kept is not None:
                rows = tuple(rows[i] for i in self.kept.tolist())
            self._named[total] = Rows(rows)
        return self._named[total]


class Outline:
    """The layers of a model, found anew only when what is trained has changed.

    Args:
        model: The model.
        patterns: Globs on module paths: the layers to have rows; None is all.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str] | None = None) -> None:
        self._model = model
        self._patterns = patterns
        self._known: dict[int | None, _Known] = {}

    def check(self) -> None:
        """Make sure that each pattern fits a layer; later ones may be frozen.

        Raises:
            TypeError: If the patterns are not a list of strings.
            ValueError: If one fits none.
        """
        patterns = self._patterns
        if patterns is None:
            return
        listed = isinstance(patterns, Sequence) and not isinstance(patterns, str)
        if not listed or not all(isinstance(pattern, str) for pattern in patterns):
            raise TypeError(
                "modules is a list of globs on module paths, got "
                f"{patterns!r}; write modules=['encoder.*']"
            )
        names = [row.name for row in self.of(None).layers]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                few = ", ".join(names[:12])
                raise ValueError(
                    "a pattern of modules fits one that owns a trainable parameter, "
                    f"got {pattern!r}, which fits none of {few}"
                    f"{', …' if len(names) > 12 else ''}"
                )

    def of(self, optimizer: Optimizer | None) -> Layers:
        """The layers that an optimizer trains.

        What is frozen, unfrozen, added to the optimizer or materialized between two
        steps is followed.

        Args:
            optimizer: The optimizer; None is all that requires a gradient.
        """
        if optimizer is None:
            given = [*self._model.parameters()]
        else:
            groups = [group["params"] for group in optimizer.param_groups]
            given = groups[0] if len(groups) == 1 else [*chain(*groups)]
        key = None if optimizer is None else id(optimizer)
        known = self._known.get(key)
        if known is not None and known.holds(given):
            return known.layers
        owned = None if optimizer is None else {id(p) for p in given}
        layers = trainable_layers(self._model, owned, self._patterns)
        self._known[key] = _Known([*given], [p.requires_grad for p in given], layers)
        return layers


@dataclass(frozen=True)
class _Known:
    """The layers of some parameters, as long as these are the same."""

    given: list[Tensor]
    trained: list[bool]
    layers: Layers

    def holds(self, given: Sequence[Tensor]) -> bool:
        # By identity: tensors compare by their entries.
        return (
            len(given) == len(self.given)
            and all(map(is_, given, self.given))
            and [p.requires_grad for p in given] == self.trained
            and not self.layers.lazy
        )


def trainable_layers(
    model: nn.Module,
    only: set[int] | None = None,
    patterns: Sequence[str] | None = None,
) -> Layers:
    """The layers with a parameter that requires a gradient.

    A tied parameter belongs to the first layer that owns it.

    Args:
        model: The model.
        only: Identities of the parameters to keep; None keeps all.
        patterns: Globs on module paths: the layers to have rows; None is all.
    """
    taken = {"total", "root"}
    layers: list[Row] = []
    sizes: list[int] = []
    rows: list[Row] = []
    parameters: list[Tensor] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        owned: list[tuple[str, Tensor]] = []
        for leaf, parameter in module._parameters.items():
            if parameter is None or not parameter.requires_grad:
                continue
            key = id(parameter)
            if key not in seen and (only is None or key in only):
                seen.add(key)
                owned.append((leaf, parameter))
        if not owned:
            continue
        layer = _unique(path, "layer", taken) if path else "root"
        layers.append(Row(layer, "layer"))
        sizes.append(len(owned))
        for leaf, parameter in owned:
            name = _unique(f"{layer}.{leaf}" if path else leaf, "parameter", taken)
            shape = None if is_lazy(parameter) else tuple(parameter.shape)
            rows.append(Row(name, "parameter", shape))
            parameters.append(parameter)
    return Layers(tuple(layers), tuple(sizes), tuple(rows), tuple(parameters), patterns)


def _unique(name: str, kind: Kind, taken: set[str]) -> str:
    """The name, or one that says what it names where the name is taken.

    A slash separates the segments of a tag, so it cannot stay in a name.
    """
    name = name.replace("/", ":")
    while name in taken:
        name = f"{name} ({kind})"
    taken.add(name)
    return name
