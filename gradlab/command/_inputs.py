"""The inputs of a check: what `--inputs` names, or random tensors of each `--shape`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._named import UsageError, guessed, named

if TYPE_CHECKING:
    from torch import Tensor

_SHAPE = re.compile(r"\d+(x\d+)*")


def inputs_named(text: str) -> Any:
    """The inputs behind a name: a tensor, a sequence of arguments, or keywords.

    Args:
        text: Names a value, or a callable without arguments that returns one.

    Raises:
        UsageError: When it is neither, or the callable raises.
    """
    from torch import Tensor

    found = named(text)
    if callable(found) and not isinstance(found, Tensor):
        try:
            found = found()
        except Exception as error:
            raise UsageError(
                f"--inputs must be callable without arguments, {text}() raised "
                f"{type(error).__name__}: {error}"
            ) from None
    if isinstance(found, str) or not isinstance(found, (Tensor, Sequence, Mapping)):
        raise UsageError(
            "--inputs must be a tensor, a tuple of arguments or a dict of keyword "
            f"arguments, or a callable that returns one; {text} gave a "
            f"{type(found).__name__}"
        )
    return found


def random_inputs(
    shapes: Sequence[str], dtypes: Sequence[str], seed: int
) -> tuple[Tensor, ...]:
    """One random tensor a shape: normal if it can require grad, else zeros and ones.

    Args:
        shapes: As `3x4`, `4` or `scalar`.
        dtypes: One for all, or one a shape; float64 if there is none.
        seed: Seed of the numbers.

    Raises:
        UsageError: When a shape or a dtype is none, or their numbers do not match.
    """
    import torch

    if len(dtypes) not in (0, 1, len(shapes)):
        raise UsageError(
            f"--dtype must be given once or once a shape: {len(shapes)} shapes, "
            f"{len(dtypes)} dtypes"
        )
    generator = torch.Generator().manual_seed(seed)
    each = dtypes if len(dtypes) > 1 else [*dtypes, "float64"][:1] * len(shapes)
    tensors = []
    for shape, dtype in zip(map(_shape, shapes), map(_dtype, each), strict=True):
        if dtype.is_floating_point or dtype.is_complex:
            wide = torch.complex128 if dtype.is_complex else torch.float64
            draw = torch.randn(shape, dtype=wide, generator=generator)
            tensors.append(draw.to(dtype).requires_grad_())
        else:
            draw = torch.randint(0, 2, shape, generator=generator)
            tensors.append(draw.to(dtype))
    return tuple(tensors)


def _shape(text: str) -> tuple[int, ...]:
    if text == "scalar":
        return ()
    if not _SHAPE.fullmatch(text):
        raise UsageError(
            f"--shape must be lengths joined by x, as 3x4, or scalar; got {text!r}"
        )
    return tuple(map(int, text.split("x")))


def _dtype(text: str) -> Any:
    import torch

    found = getattr(torch, text.removeprefix("torch."), None)
    if isinstance(found, torch.dtype):
        return found
    names = (name for name, value in vars(torch).items() if type(value) is torch.dtype)
    raise UsageError(
        f"--dtype must be a dtype of torch, got {text!r}{guessed(text, names)}"
    )
