"""Adam (Kingma & Ba, arXiv:1412.6980; amsgrad: Reddi et al., arXiv:1904.09237).

**Update** number t of a parameter θ with gradient g (to maximize: −g) at the rate
γ (`lr`), with averages β₁, β₂ and weight decay λ:

    g ← g + λθ                          if λ ≠ 0
    m ← β₁m + (1 − β₁)g                 the average
    v ← β₂v + (1 − β₂)g²                the average square
    v̄ ← max(v̄, v)                       amsgrad; otherwise v̄ = v
    σ ← √(v̄ / (1 − β₂ᵗ)) + ε
    θ ← θ − γ/(1 − β₁ᵗ) · m/σ

The averages start at zero, so after t updates their weights sum to 1 − βᵗ: dividing by
it makes them averages from the first update on.

**State**: `step` = t; `exp_avg` = m, `exp_avg_sq` = v, `max_exp_avg_sq` = v̄ if amsgrad,
shaped as θ and zero at first.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ._bucket import Bucket, Tensors, scale_
from ._optimizer import Group, Optimizer, non_negative


class Adam(Optimizer):
    """Descent along average/√(average square): `torch.optim.Adam`, written out.

    Args:
        params: Tensors, named tensors or groups of them to optimize.
        lr: The learning rate γ, a number or a tensor of one element.
        betas: The smoothing β₁ of the gradient's average and β₂ of its square's.
        eps: The ε that keeps the division finite.
        weight_decay: The factor λ of the L2 penalty.
        amsgrad: Whether to divide by the largest average square so far.
        foreach: None or True, the only implementation here.
        maximize: Whether to climb instead of descending.
        capturable: False: a step is not for CUDA graphs.
        differentiable: False: a step is not part of the graph.
        fused: None or False.
        decoupled_weight_decay: Whether to decay the weights as `AdamW` does.

    Raises:
        ValueError: When an option is out of range or a switch is not supported.

    Example:
        >>> x = torch.tensor([1.0, 100.0], requires_grad=True)
        >>> optimizer = Adam([x], lr=0.1)
        >>> x.square().sum().backward()
        >>> optimizer.step()
        >>> x  # the first update is γ·sign(g)
        tensor([ 0.9000, 99.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        non_negative(group, eps="try 1e-8", weight_decay="0 switches it off")
        for index, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(
                    f"betas[{index}] must be in [0, 1), got {beta}; "
                    "(0.9, 0.999) is the usual pair"
                )

    def update(self, group: Group, bucket: Bucket) -> None:
        theta, g = bucket.params, bucket.grads
        lr, decay = group["lr"], group["weight_decay"]

        if decay and group["decoupled_weight_decay"]:
            scale_(theta, 1 - lr * decay)  # θ ← θ − γλθ
        elif decay:
            g = torch._foreach_add(g, theta, alpha=decay)  # g ← g + λθ
        self.descend(group, bucket, g)

    def descend(self, group: Group, bucket: Bucket, g: Tensors) -> None:
        """Updates the averages with g, and θ with them.

        Args:
            group: The options.
            bucket: The parameters θ and their state.
            g: Their gradients, with the weight decay if it is to be averaged too.
        """
        theta, t = bucket.params, bucket.count()
        lr, (beta1, beta2), eps = group["lr"], group["betas"], group["eps"]
        m, v = bucket.state("exp_avg"), bucket.state("exp_avg_sq")

        torch._foreach_lerp_(m, g, 1 - beta1)  # m ← β₁m + (1 − β₁)g
        scale_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)  # v ← β₂v + (1 − β₂)g²
        if group["amsgrad"]:
            largest = bucket.state("max_exp_avg_sq")
            torch._foreach_maximum_(largest, v)  # v̄ ← max(v̄, v)
            v = largest
        sigma = torch._foreach_sqrt(v)
        torch._foreach_div_(sigma, [(1 - beta2**n) ** 0.5 for n in t])
        torch._foreach_add_(sigma, eps)  # σ ← √(v̄ / (1 − β₂ᵗ)) + ε
        rates = [-lr / (1 - beta1**n) for n in t]
        torch._foreach_addcdiv_(theta, m, sigma, rates)  # θ ← θ − γ/(1 − β₁ᵗ) · m/σ
