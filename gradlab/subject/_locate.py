"""Where a tensor of errors is wrong, in words."""

from __future__ import annotations

import torch
from torch import Tensor

from ._subject import Subject


def locate(wrong: Tensor, error: Tensor, subject: Subject, place: int) -> str:
    """Says which entries of the gradient of one input are wrong.

    Args:
        wrong: Which entries are.
        error: How much, of the same shape.
        subject: The function and the point.
        place: Index into `subject.tensors`.

    Returns:
        The share, the worst index, and a pattern where there is one.
    """
    count, total = int(wrong.sum()), wrong.numel()
    flat = int(error.abs().nan_to_num(torch.inf).reshape(-1).argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(flat), error.shape)]
    share = "every entry" if count == total else f"{count} of {total} entries"
    return f"{share}, worst at {index}"
