"""Whether a tensor is finite, whatever its layout and dtype."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def non_finite(tensor: Tensor) -> set[str]:
    """Which of `nan`, `inf` and `-inf` a tensor holds.

    Args:
        tensor: Any tensor; what cannot be asked (integers, meta, quantized) is finite.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return set()
    if tensor.device.type == "meta" or not tensor.numel():
        return set()
    try:
        values = dense(tensor)
        if bool(torch.isfinite(values).all()):
            return set()
        if values.is_complex():
            values = torch.view_as_real(values.resolve_conj())
        kinds = (values.isnan(), values == math.inf, values == -math.inf)
        names = ("nan", "inf", "-inf")
        return {name for name, hit in zip(names, kinds, strict=True) if bool(hit.any())}
    except (RuntimeError, NotImplementedError):
        return set()


def dense(tensor: Tensor) -> Tensor:
    """The values of a tensor, strided and of a dtype that has `isfinite`.

    Args:
        tensor: Any tensor.
    """
    tensor = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        tensor = tensor._values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.values()
    # The dtypes of 8 bits have no arithmetic.
    return tensor.float() if tensor.dtype.itemsize == 1 else tensor


def hit_rows(tensor: Tensor, batch: int) -> tuple[int, ...]:
    """The entries along dimension 0 that are not finite, if that is the batch.

    Args:
        tensor: Any tensor.
        batch: How many entries the batch has.
    """
    if tensor.layout is not torch.strided or not tensor.ndim or not batch:
        return ()
    if len(tensor) != batch:
        return ()
    wrong = ~torch.isfinite(dense(tensor))
    return tuple(wrong.reshape(batch, -1).any(1).nonzero().flatten().tolist())
