"""AdamW (Loshchilov & Hutter, arXiv:1711.05101).

**Update** of a parameter θ with gradient g at the rate γ (`lr`), with weight decay λ:

    θ ← θ − γλθ
    θ ← Adam's update of θ with g alone, λ = 0

Adam scales the gradient of an L2 penalty along with the rest of g, so weights with
large gradients hardly decay. Here the decay stays out of the averages: every weight
shrinks by the same factor.

**State**: that of Adam.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ._adam import Adam
from ._bucket import Bucket, scale_
from ._optimizer import Group


class AdamW(Adam):
    """Adam with decoupled weight decay: `torch.optim.AdamW`, written out.

    Args:
        params: Tensors, named tensors or groups of them to optimize.
        lr: The learning rate γ, a number or a tensor of one element.
        betas: The smoothing β₁ of the gradient's average and β₂ of its square's.
        eps: The ε that keeps the division finite.
        weight_decay: The factor λ; an update shrinks the weights by γλ.
        amsgrad: Whether to divide by the largest average square so far.
        maximize: Whether to climb instead of descending.
        foreach: None or True, the only implementation here.
        capturable: False: a step is not for CUDA graphs.
        differentiable: False: a step is not part of the graph.
        fused: None or False.

    Raises:
        ValueError: When an option is out of range or a switch is not supported.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 100.0], requires_grad=True)
        >>> optimizer = AdamW([x], lr=0.1, weight_decay=0.5)
        >>> x.square().sum().backward()
        >>> optimizer.step()
        >>> x  # 5% less, and then Adam's 0.1·sign(g)
        tensor([ 0.8500, 94.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True

    def update(self, group: Group, bucket: Bucket) -> None:
        if decay := group["weight_decay"]:
            scale_(bucket.params, 1 - group["lr"] * decay)  # θ ← θ − γλθ
        self.descend(group, bucket, bucket.grads)
