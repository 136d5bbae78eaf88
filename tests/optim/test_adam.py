"""Adam against its equation, by hand, and what its parts are for."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from gradlab.optim import Adam

LR, BETA1, BETA2, EPS, DECAY = 0.1, 0.75, 0.9, 1e-3, 0.5
GRADS = [3.0, -2.0, 0.5, 0.25]


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_the_equation(amsgrad: bool, decoupled: bool) -> None:
    p = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    optimizer = Adam(
        [p],
        LR,
        (BETA1, BETA2),
        EPS,
        DECAY,
        amsgrad,
        decoupled_weight_decay=decoupled,
    )
    theta, m, v, largest = 3.0, 0.0, 0.0, 0.0
    for t, grad in enumerate(GRADS, 1):
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        g = grad if decoupled else grad + DECAY * theta
        theta -= LR * DECAY * theta if decoupled else 0.0
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g**2
        largest = max(largest, v) if amsgrad else v
        theta -= LR * (m / (1 - BETA1**t)) / (sqrt(largest / (1 - BETA2**t)) + EPS)
        assert p.item() == pytest.approx(theta, rel=1e-14)


def test_a_steady_gradient_moves_by_the_rate_from_the_start() -> None:
    p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = Adam([p], lr=0.1, eps=0.0)
    for t in range(1, 6):
        p.grad = torch.tensor([1e-6, -1e6], dtype=torch.float64)
        optimizer.step()
        assert p.tolist() == pytest.approx([-0.1 * t, 0.1 * t])


def test_amsgrad_may_be_switched_on_later() -> None:
    p = torch.zeros((), requires_grad=True)
    p.grad = torch.ones(())
    optimizer = Adam([p])
    optimizer.step()
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.step()
    row = optimizer.state[p]
    assert torch.equal(row["max_exp_avg_sq"], row["exp_avg_sq"])


def test_tensor_betas() -> None:
    results: list[float] = []
    for betas in (0.5, 0.75), (torch.tensor(0.5), torch.tensor(0.75)):
        p = torch.zeros((), requires_grad=True)
        optimizer = Adam([p], betas=betas)
        for grad in 1.0, -2.0:
            p.grad = torch.tensor(grad)
            optimizer.step()
        results.append(p.item())
    assert results[0] == results[1]
