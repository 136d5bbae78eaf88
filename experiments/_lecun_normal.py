"""N(0, 1/n) weights, which keep the variance of a linear map (LeCun et al., 1998)."""

from __future__ import annotations

import torch
from torch import Tensor


def lecun_normal_(weight: Tensor) -> Tensor:
    """Fills `weight` in place from N(0, 1/n), where n is its fan-in, and returns it.

    With unit-variance inputs x_i, y_o = Σᵢ W_oi x_i has variance n · 1/n = 1. He's
    initialisation, `torch.nn.init.kaiming_normal_`, is N(0, 2/n): ReLU halves the
    second moment.

    Args:
        weight: of shape (out, in, ...), as torch's layers have it.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> f"{lecun_normal_(torch.empty(400, 100)).var().item() * 100:.2f}"
        '1.00'
    """
    return torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
