"""Gradient descent with momentum (Polyak 1964; Nesterov 1983; Sutskever et al. 2013).

**Update** of a parameter θ with gradient g (to maximize: −g) at the rate γ (`lr`),
with momentum μ, dampening τ and weight decay λ:

    g ← g + λθ                  if λ ≠ 0
    b ← μb + (1 − τ)g           if μ ≠ 0; at a parameter's first update b ← g
    g ← g + μb  (nesterov)  or  g ← b
    θ ← θ − γg

**State**: `momentum_buffer` = b, shaped as θ, if μ ≠ 0; nothing otherwise.

As in torch, and unlike in the papers, γ multiplies the velocity b on its way into θ and
not the gradient on its way into b: a new rate takes effect at once.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ._bucket import Bucket, scale_
from ._optimizer import Group, Optimizer, non_negative


class SGD(Optimizer):
    """Gradient descent, optionally with momentum: `torch.optim.SGD`, written out.

    Args:
        params: Tensors, named tensors or groups of them to optimize.
        lr: The learning rate γ, a number or a tensor of one element.
        momentum: The share μ of the velocity that survives an update.
        dampening: The share τ of the gradient that stays out of the velocity.
        weight_decay: The factor λ of the L2 penalty.
        nesterov: Whether to look ahead along the velocity; needs momentum and no
            dampening.
        maximize: Whether to climb instead of descending.
        foreach: None or True, the only implementation here.
        differentiable: False: a step is not part of the graph.
        fused: None or False.

    Raises:
        ValueError: When an option is out of range or a switch is not supported.

    Example:
        >>> x = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = SGD([x], lr=0.1, momentum=0.9)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     x.square().sum().backward()
        ...     optimizer.step()
        >>> x  # 1 − 0.1·2 = 0.8, then 0.8 − 0.1·(0.9·2 + 1.6)
        tensor([0.4600], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        off = "0 switches it off"
        non_negative(group, momentum=off, weight_decay=off)
        momentum, dampening = group["momentum"], group["dampening"]
        if group["nesterov"] and not (momentum > 0 and dampening == 0):
            raise ValueError(
                "nesterov needs momentum > 0 and dampening = 0, got "
                f"momentum={momentum} and dampening={dampening}; "
                "pass momentum=0.9, dampening=0, or nesterov=False"
            )

    def update(self, group: Group, bucket: Bucket) -> None:
        theta, g = bucket.params, bucket.grads
        lr, decay = group["lr"], group["weight_decay"]
        mu, tau = group["momentum"], group["dampening"]

        if decay:
            g = torch._foreach_add(g, theta, alpha=decay)  # g ← g + λθ
        if mu:
            b = bucket.state("momentum_buffer")
            scale_(b, mu)
            fresh = 1 if bucket.first else 1 - tau
            torch._foreach_add_(b, g, alpha=fresh)  # b ← μb + (1 − τ)g
            if not group["nesterov"]:
                g = b
            elif decay:
                torch._foreach_add_(g, b, alpha=mu)  # in place: this g is not p.grad
            else:
                g = torch._foreach_add(g, b, alpha=mu)  # g ← g + μb
        torch._foreach_add_(theta, g, alpha=-lr)  # θ ← θ − γg
