"""RMSProp (Tieleman & Hinton, lecture 6.5, 2012; centered: Graves, arXiv:1308.0850).

**Update** of a parameter θ with gradient g (to maximize: −g) at the rate γ (`lr`),
with smoothing α, momentum μ and weight decay λ:

    g ← g + λθ                  if λ ≠ 0
    v ← αv + (1 − α)g²          the average square
    ḡ ← αḡ + (1 − α)g           the average, if centered
    σ ← √v + ε                  centered: √(v − ḡ²) + ε
    θ ← θ − γ g/σ               with momentum: b ← μb + g/σ, θ ← θ − γb

**State**: `step` = the number of updates; `square_avg` = v, `grad_avg` = ḡ if centered,
`momentum_buffer` = b if μ > 0, shaped as θ and zero at first.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ._bucket import Bucket, scale_
from ._optimizer import Group, Optimizer, non_negative


class RMSprop(Optimizer):
    """Descent along g/√(average of g²): `torch.optim.RMSprop`, written out.

    Args:
        params: Tensors, named tensors or groups of them to optimize.
        lr: The learning rate γ, a number or a tensor of one element.
        alpha: The smoothing α of the averages; they reach back about 1/(1 − α) updates.
        eps: The ε that keeps the division finite.
        weight_decay: The factor λ of the L2 penalty.
        momentum: The share μ of the velocity that survives an update.
        centered: Whether to divide by the standard deviation of g instead of its root
            mean square.
        capturable: False: a step is not for CUDA graphs.
        foreach: None or True, the only implementation here.
        maximize: Whether to climb instead of descending.
        differentiable: False: a step is not part of the graph.

    Raises:
        ValueError: When an option is out of range or a switch is not supported.

    Example:
        >>> x = torch.tensor([1.0, 100.0], requires_grad=True)
        >>> optimizer = RMSprop([x], lr=0.1, alpha=0.75)
        >>> x.square().sum().backward()
        >>> optimizer.step()
        >>> x  # each by 0.1/√0.25, whatever its gradient
        tensor([ 0.8000, 99.8000], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        off = "0 switches it off"
        non_negative(group, alpha=off, eps=off, momentum=off, weight_decay=off)

    def update(self, group: Group, bucket: Bucket) -> None:
        theta, g = bucket.params, bucket.grads
        lr, decay, eps = group["lr"], group["weight_decay"], group["eps"]
        alpha, mu = group["alpha"], group["momentum"]
        v = bucket.state("square_avg")
        bucket.count()

        if decay:
            g = torch._foreach_add(g, theta, alpha=decay)  # g ← g + λθ
        scale_(v, alpha)
        torch._foreach_addcmul_(v, g, g, 1 - alpha)  # v ← αv + (1 − α)g²
        if group["centered"]:
            mean = bucket.state("grad_avg")
            torch._foreach_lerp_(mean, g, 1 - alpha)  # ḡ ← αḡ + (1 − α)g
            sigma = torch._foreach_addcmul(v, mean, mean, -1)
            torch._foreach_sqrt_(sigma)
        else:
            sigma = torch._foreach_sqrt(v)
        torch._foreach_add_(sigma, eps)  # σ ← √v + ε
        if mu:
            b = bucket.state("momentum_buffer")
            scale_(b, mu)
            torch._foreach_addcdiv_(b, g, sigma)  # b ← μb + g/σ
            torch._foreach_add_(theta, b, alpha=-lr)  # θ ← θ − γb
        else:
            torch._foreach_addcdiv_(theta, g, sigma, -lr)  # θ ← θ − γ g/σ
