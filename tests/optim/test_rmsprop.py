"""RMSProp against its equation, by hand, and what the centre is for."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from gradlab.optim import RMSprop

LR, ALPHA, EPS, DECAY = 0.1, 0.75, 1e-3, 0.5
GRADS = [1.0, -2.0, 0.5]


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("mu", [0.0, 0.9])
def test_the_equation(centered: bool, mu: float) -> None:
    p = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    optimizer = RMSprop([p], LR, ALPHA, EPS, DECAY, mu, centered)
    theta, v, mean, b = 3.0, 0.0, 0.0, 0.0
    for grad in GRADS:
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        g = grad + DECAY * theta
        v = ALPHA * v + (1 - ALPHA) * g**2
        mean = ALPHA * mean + (1 - ALPHA) * g
        sigma = sqrt(v - mean**2 if centered else v) + EPS
        b = mu * b + g / sigma
        theta -= LR * b
        assert p.item() == pytest.approx(theta, rel=1e-14)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = RMSprop([p], eps=0.0)
    for _ in range(5):
        p.grad = torch.tensor([1e-9, -1.0, 1e9], dtype=torch.float64)
        optimizer.step()
    assert p[0].item() == pytest.approx(-p[1].item())
    assert p[0].item() == pytest.approx(p[2].item())


def test_a_steady_gradient_goes_faster_when_centered() -> None:
    moved: list[float] = []
    for centered in False, True:
        p = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = RMSprop([p], alpha=0.5, centered=centered)
        for _ in range(20):
            p.grad = torch.ones_like(p)
            optimizer.step()
        moved.append(-p.item())
    assert moved[1] > 5 * moved[0]
