"""Which modules' outputs are watched, which tensor of an output, and its units."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import NamedTuple

from torch import Tensor, nn

from ._layers import _unique

_ACTIVATIONS = nn.ReLU.__module__
_CHANNELS_FIRST = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.PReLU)
_FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.RNNBase)


class Watched(NamedTuple):
    """A module whose output is watched.

    Attributes:
        name: The name of its row.
        module: The module.
    """

    name: str
    module: nn.Module


def watched_modules(model: nn.Module, patterns: Sequence[str] | None) -> list[Watched]:
    """The modules to watch, in the order of the model.

    Args:
        model: The model.
        patterns: Globs on module paths; None is every module that owns a parameter and
            every activation function.

    Raises:
        ValueError: If a pattern fits no module.
    """
    modules = list(model.named_modules())
    paths = [path for path, _ in modules]
    for pattern in patterns or ():
        if not fnmatch.filter(paths, pattern):
            known = ", ".join(path for path in paths[:12] if path)
            raise ValueError(
                f"a pattern of activations fits the path of a module, got {pattern!r}, "
                f"which fits none of {known}{', …' if len(paths) > 12 else ''}"
            )
    chosen = [
        (path, module)
        for path, module in modules
        if (
            _is_layer(module)
            if patterns is None
            else any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
        )
    ]
    if not chosen:
        raise ValueError(
            "activations are watched of modules that own parameters or are activation "
            f"functions, got {type(model).__name__} with neither; name modules by "
            "patterns"
        )
    taken = {"total", "root"}
    return [
        Watched(_unique(path, "layer", taken) if path else "root", module)
        for path, module in chosen
    ]


def gradient_carrier(output: object) -> Tensor | None:
    """The first real or complex tensor of an output that has a gradient.

    Args:
        output: What a module returned: a tensor, or tuples, mappings and dataclasses
            of them.
    """
    for tensor in _tensors(output):
        if carries_gradient(tensor):
            return tensor
    return None


def carries_gradient(tensor: Tensor) -> bool:
    """Whether a gradient goes back through a tensor, and can be measured.

    Args:
        tensor: An output.
    """
    return (
        tensor.requires_grad
        and (tensor.is_floating_point() or tensor.is_complex())
        and tensor.numel() > 0
        # A DTensor's numbers would be those of one shard.
        and (type(tensor) is Tensor or not hasattr(tensor, "full_tensor"))
    )


def unit_axis(
    module: nn.Module, output: Tensor, inherited: int | None = None
) -> int | None:
    """The dimension along which the units of an output are.

    Args:
        module: The module.
        output: Its output.
        inherited: Where they are in the output of this shape before it: an activation
            function alone cannot tell a sequence from channels.

    Returns:
        1 for `[N, C, ...]`, -1 for `[..., features]`; None for a scalar.
    """
    if not output.ndim:
        return None
    if isinstance(module, nn.modules.conv._ConvNd):
        return output.ndim - 1 - len(module.kernel_size)
    if isinstance(module, _CHANNELS_FIRST):
        return 1 if output.ndim > 1 else 0
    if isinstance(module, _FEATURES_LAST):
        return -1
    if inherited is not None:
        return inherited
    return 1 if output.ndim >= 4 else -1


def _is_layer(module: nn.Module) -> bool:
    return any(p is not None for p in module._parameters.values()) or any(
        kind.__module__ == _ACTIVATIONS for kind in type(module).__mro__
    )


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
        return
    parts: Sequence[object] = ()
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, (list, tuple)):
        parts = output
    elif is_dataclass(output) and not isinstance(output, type):
        parts = [getattr(output, field.name) for field in fields(output)]
    for part in parts:
        yield from _tensors(part)
