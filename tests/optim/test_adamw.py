"""What AdamW is for: the decay does not depend on the gradient."""

from __future__ import annotations

import pytest
import torch

from gradlab.optim import Adam, AdamW


def shrinkage(rule: type[Adam], scale: float) -> float:
    """What one update with decay takes off a weight, beside one without."""
    left: list[float] = []
    for decay in 0.0, 0.5:
        p = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        p.grad = torch.tensor(scale, dtype=torch.float64)
        rule([p], lr=0.1, weight_decay=decay).step()
        left.append(p.item())
    return left[0] - left[1]


def test_the_decay_does_not_depend_on_the_gradient() -> None:
    for scale in 1e-6, 1.0, 1e6:
        assert shrinkage(AdamW, scale) == pytest.approx(0.1 * 0.5 * 2.0)
        assert shrinkage(Adam, scale) == pytest.approx(0.0, abs=0.01)


def test_a_state_of_adam_does_not_couple_it() -> None:
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.ones(2)
    adam = torch.optim.Adam([p])
    adam.step()
    adamw = AdamW([p])
    adamw.load_state_dict(adam.state_dict())
    assert adamw.param_groups[0]["decoupled_weight_decay"] is True
