"""One forward and backward of a broken model, and what broke it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ._call import Call
from ._culprit import Culprit
from ._replay import replay


def find_non_finite(
    model: nn.Module,
    *args: Any,
    loss: Callable[[Any], Tensor] | None = None,
    **kwargs: Any,
) -> Culprit | None:
    """Run a model once, forward and backward, and name what makes NaN or infinity.

    Nothing changes by this: no weight, gradient, buffer, hook or random number.

    Args:
        model: The model.
        *args: What it is called with: the batch.
        loss: Makes the loss of its output; None if the output is the loss, or has it
            as `loss`. If it is not a scalar, its sum is taken.
        **kwargs: What it is called with, by name.

    Returns:
        What makes the first non-finite number; None if everything is finite.

    Example:
        >>> import torch
        >>> class Distance(nn.Module):
        ...     def forward(self, x, y):
        ...         return (x - y).square().sum(1).sqrt()
        >>> x = torch.ones(3, 2)
        >>> y = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], requires_grad=True)
        >>> culprit = find_non_finite(Distance(), x, y)
        >>> print(culprit.what)
        div(1, 0) gives inf at 1 of 3 entries
        >>> culprit.kind, culprit.function, culprit.entries
        ('backward', 'sqrt', (1,))
    """

    def scalar(output: Any) -> Tensor:
        value = output if loss is None else loss(output)
        if loss is None and not isinstance(value, Tensor):
            get = getattr(value, "get", None)
            value = getattr(value, "loss", None) if get is None else get("loss")
        if not isinstance(value, Tensor):
            raise TypeError(
                "find_non_finite goes back from a loss, a torch.Tensor, got "
                f"{type(value).__name__}; pass loss=, which makes it of the output"
            )
        return value.sum() if value.ndim else value

    return replay(model, Call("", args, kwargs), loss=scalar)
