"""Steps that end otherwise than well: the next one is read again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlab import Monitor, Snapshot
from gradlab.quantities import ActivationRMS, GradNorm, UpdateRatio

ALL = (GradNorm(), UpdateRatio(), ActivationRMS())


class Fragile(torch.optim.SGD):
    """Raises in the step that it is told to."""

    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise RuntimeError("out of memory")
        return super().step(closure)


class Inner(torch.optim.SGD):
    """Calls the step of its parent, so that the hooks run twice in a step."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Outer(Inner, Fragile):
    pass


def watched(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[Snapshot]:
    seen: list[Snapshot] = []
    Monitor(model, optimizer, quantities=ALL, sinks=[seen.append])
    return seen


def steps(seen: list[Snapshot], quantity: str) -> list[int]:
    return [snapshot.step for snapshot in seen if quantity in snapshot.quantities]


@pytest.mark.parametrize("kind", [Fragile, Outer])
def test_a_step_that_raised(kind: type[Fragile]) -> None:
    # Only a class that has been instantiated runs hooks of its own.
    torch.optim.SGD([torch.ones(1)])
    model = nn.Linear(3, 1)
    optimizer = kind(model.parameters(), lr=0.1)
    seen = watched(optimizer, model)
    for step in range(5):
        optimizer.fails = step == 1
        model(torch.ones(2, 3)).square().sum().backward()
        try:
            optimizer.step()
        except RuntimeError:
            assert step == 1
    assert steps(seen, "grad_norm") == [0, 1, 2, 3, 4]
    # Of what a step that raised has done nothing is said.
    assert steps(seen, "update_ratio") == [0, 2, 3, 4]
    # Within a step nothing is measured, and that it is over shows at the next.
    assert steps(seen, "activation_rms") == [0, 1, 3, 4]


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_closure_that_raised(
    kind: type[torch.optim.Optimizer], dynamo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dynamo:
        # As importing dynamo does to some optimizers, once a process.
        wrapped = torch._dynamo.disable(kind.step)
        monkeypatch.setattr(kind, "step", wrapped)
    model = nn.Linear(3, 1)
    optimizer = kind(model.parameters(), lr=0.1)
    seen = watched(optimizer, model)

    def closure(fails: bool) -> Callable[[], Tensor]:
        def run() -> Tensor:
            optimizer.zero_grad()
            loss = model(torch.ones(2, 3)).square().sum()
            if fails:
                raise RuntimeError("a bad batch")
            loss.backward()
            return loss

        return run

    take: Any = optimizer.step
    for step in range(4):
        try:
            take(closure(step == 1))
        except RuntimeError:
            assert step == 1
    for quantity in ("grad_norm", "update_ratio", "activation_rms"):
        assert steps(seen, quantity) == [0, 2, 3]


def test_clipping_after_a_step_that_raised() -> None:
    model = nn.Linear(3, 1)
    optimizer = Fragile(model.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    monitor = Monitor(model, optimizer, quantities=ALL, sinks=[seen.append])
    for step in range(3):
        optimizer.fails = step == 0
        model(torch.ones(2, 3)).square().sum().backward()
        monitor.before_clipping()
        try:
            optimizer.step()
        except RuntimeError:
            assert step == 0
    unscaled = [snapshot for snapshot in seen if snapshot.stage == "unscaled"]
    assert steps(unscaled, "grad_norm") == [0, 1, 2]


def test_a_monitor_that_let_go_can_be_attached_again() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    monitor = Monitor(model, optimizer, quantities=ALL, sinks=[seen.append])
    for watching in (True, False, True):
        if not watching:
            monitor.detach()
        elif seen:
            monitor.attach(optimizer)
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    for quantity in ("grad_norm", "update_ratio", "activation_rms"):
        assert steps(seen, quantity) == [0, 1]
