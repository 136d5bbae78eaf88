"""Healthy networks, of which nothing may be said."""

import pytest
import torch
from torch import nn

from experiments.bench._controls import control
from experiments.bench._net import Net
from experiments.bench._scores import OURS
from experiments.bench._zoo import TUNING
from experiments.bench.faults import watch
from gradlab import Monitor
from gradlab.monitor import Watchdog
from gradlab.quantities import GradNorm, GradZeros


@pytest.mark.parametrize("net", TUNING, ids=lambda net: net.name)
@pytest.mark.parametrize("seed", [2])
def test_nothing_is_said_of_a_healthy_run(net: Net, seed: int) -> None:
    assert watch(net, control(net, seed), seed).said[OURS] == ()


def test_rare_words_of_an_embedding_are_not_dead_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5000, 8), nn.Flatten(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watchdog = Watchdog(outputs=[])
    monitor = Monitor(
        model, optimizer, quantities=[GradNorm(), GradZeros()], sinks=[watchdog]
    )
    with monitor:
        for _ in range(30):
            optimizer.zero_grad()
            model(torch.randint(5000, (4, 4))).square().mean().backward()
            optimizer.step()
    assert watchdog.findings == []
    assert "vanishing" in watchdog.skipped
