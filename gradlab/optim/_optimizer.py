"""`Optimizer`: everything of an update rule but its equation, written once.

A rule such as `SGD` names its options, checks them and gives `update`. The rest is
here: `step` hands the parameters that have a gradient to `update`, a `Bucket` at a
time, and the state is kept under torch's own keys, so that a `state_dict` moves between
`torch.optim` and `gradlab.optim` in both directions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from ._bucket import Bucket, buckets, step_dtype

Group = dict[str, Any]
"""A parameter group: its parameters and its options, as torch keeps them."""

# What else torch offers to compute an update with, and why it is not here.
_SWITCHES = {
    "foreach": (None, True, "the update is written in foreach ops only"),
    "fused": (None, False, "the update is an equation, not a fused kernel"),
    "capturable": (None, False, "the step count is read on the host, not in a graph"),
    "differentiable": (None, False, "the update runs in place, under no_grad"),
}


class Optimizer(torch.optim.Optimizer, ABC):
    """Base class of the update rules: a subclass gives `update`, and `check` if needed.

    Args:
        params: What `torch.optim.Optimizer` takes: tensors, named tensors or groups.
        defaults: The options of a group that does not give its own, `lr` among them.

    Raises:
        ValueError: When an option is out of range or a switch is not supported.

    Example:
        >>> class SignDescent(Optimizer):
        ...     def __init__(self, params, lr=1e-3):
        ...         super().__init__(params, {"lr": lr})
        ...
        ...     def update(self, group, bucket):
        ...         signs = torch._foreach_sign(bucket.grads)
        ...         torch._foreach_add_(bucket.params, signs, alpha=-group["lr"])
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> x.square().sum().backward()
        >>> SignDescent([x], lr=0.5).step()
        >>> x
        tensor([ 2.5000, -1.5000], requires_grad=True)
    """

    @abstractmethod
    def update(self, group: Group, bucket: Bucket) -> None:
        """Updates the parameters of one bucket in place: the equation.

        Args:
            group: The options of the bucket's group, as plain numbers.
            bucket: Parameters with a gradient.
        """

    def check(self, group: Group) -> None:
        """Checks the options of a group; a subclass adds its own.

        Args:
            group: All options of the group.

        Raises:
            ValueError: When an option is out of range or a switch is not supported.
        """
        for name, (*supported, reason) in _SWITCHES.items():
            if (value := group.get(name)) not in supported:
                raise ValueError(
                    f"{name} must be {supported[0]} or {supported[1]}, got {value!r}: "
                    f"{reason}; leave it out or use torch.optim.{type(self).__name__}"
                )
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(
                f"a tensor lr must have one element, got shape {tuple(lr.shape)}; "
                "give parameters with another rate a group of their own"
            )
        non_negative(group, lr="to climb instead of descending pass maximize=True")

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates every parameter that has a gradient, once.

        Args:
            closure: Evaluates the model anew, gradients included, and returns the loss.

        Returns:
            The closure's loss, None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            options = {name: _plain(value) for name, value in group.items()}
            maximize = group.get("maximize", False)
            for bucket in buckets(group["params"], self.state, maximize=maximize):
                self.update(options, bucket)
        return loss

    def add_param_group(self, param_group: Group) -> None:
        """Adds a group, after a check of its options.

        Args:
            param_group: The parameters under `params`, and options of their own.
        """
        self.check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        own = {name: self.defaults[name] for name in _SWITCHES if name in self.defaults}
        for group in self.param_groups:
            # How to compute is not for a loaded state to say; nor where to count.
            group.update({**self.defaults, **group, **own})
            for p in group["params"]:
                row = self.state.get(p, {})
                if "step" in row:
                    step = torch.as_tensor(row["step"], dtype=step_dtype())
                    row["step"] = step.cpu()


def non_negative(group: Group, **fixes: str) -> None:
    """Checks that options are numbers of at least 0.

    Args:
        group: The options.
        **fixes: For each option to check, what to do when it is not.

    Raises:
        ValueError: When an option is negative or not a number.
    """
    for name, fix in fixes.items():
        if not group[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {group[name]}; {fix}")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return value.item() if isinstance(value, Tensor) else value
