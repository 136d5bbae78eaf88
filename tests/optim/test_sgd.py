"""Gradient descent against its equation, by hand."""

from __future__ import annotations

import pytest
import torch

from gradlab.optim import SGD

LR, MU, TAU, DECAY = 0.1, 0.9, 0.25, 0.5
GRADS = [1.0, -2.0, 0.5]


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize(
    ("nesterov", "dampening"), [(False, 0.0), (False, TAU), (True, 0.0)]
)
def test_the_equation(nesterov: bool, dampening: float, decay: float) -> None:
    p = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    optimizer = SGD([p], LR, MU, dampening, decay, nesterov)
    theta, b = 3.0, None
    for grad in GRADS:
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        g = grad + decay * theta
        b = g if b is None else MU * b + (1 - dampening) * g
        theta -= LR * (g + MU * b if nesterov else b)
        assert p.item() == pytest.approx(theta, rel=1e-15)


def test_without_momentum_nothing_is_kept() -> None:
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.ones(2)
    optimizer = SGD([p], lr=0.5)
    optimizer.step()
    assert p.tolist() == [0.5, 0.5]
    assert optimizer.state_dict()["state"] == {}


def test_momentum_switched_on_later_starts_undamped() -> None:
    p = torch.zeros((), requires_grad=True)
    p.grad = torch.ones(())
    optimizer = SGD([p], lr=1.0, dampening=0.5)
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    assert p.item() == -2.0
    optimizer.step()
    assert p.item() == -3.0
