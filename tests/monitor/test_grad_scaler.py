import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from gradlab import Monitor as AnyMonitor, Snapshot
from gradlab.quantities import GradNorm

KINDS = pytest.mark.parametrize("kind", [SGD, Adam])

# One snapshot a step.
Monitor = partial(AnyMonitor, quantities=[GradNorm()])


def run(kind: type[SGD | Adam], fused: bool, inputs: list[float]) -> list[Snapshot]:
    """Train in a loss scale of 1024, watched."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer: Optimizer = kind(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    seen: list[Snapshot] = []
    with Monitor(model, optimizer, sinks=[seen.append]):
        for value in inputs:
            optimizer.zero_grad()
            loss = model(torch.full((2, 3), value)).square().mean()
            scaler.scale(loss).backward()
            expected = torch.nn.utils.get_total_norm(
                [p.grad for p in model.parameters() if p.grad is not None]
            )
            count = len(seen)
            scaler.step(optimizer)
            if len(seen) > count and expected.isfinite():
                torch.testing.assert_close(
                    torch.tensor(seen[-1]["grad_norm", "total"]),
                    expected / scaler.get_scale(),
                    check_dtype=False,
                )
            scaler.update()
    return seen


@KINDS
@pytest.mark.parametrize("fused", [False, True])
def test_the_norm_is_that_of_the_unscaled_gradient(
    kind: type[SGD | Adam], fused: bool
) -> None:
    seen = run(kind, fused, [1.0, 2.0, 3.0])
    assert [snapshot.step for snapshot in seen] == [0, 1, 2]


@KINDS
def test_fused_and_not_fused_are_the_same_numbers(kind: type[SGD | Adam]) -> None:
    for one, other in zip(run(kind, False, [1.0]), run(kind, True, [1.0]), strict=True):
        torch.testing.assert_close(one.values, other.values)


@KINDS
def test_unscaling_by_hand_is_not_divided_out_twice(kind: type[SGD | Adam]) -> None:
    model = nn.Linear(3, 1)
    optimizer: Optimizer = kind(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    seen: list[Snapshot] = []
    with Monitor(model, optimizer, sinks=[seen.append]):
        scaler.scale(model(torch.ones(2, 3)).square().mean()).backward()
        scaler.unscale_(optimizer)
        expected = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        scaler.step(optimizer)
    assert seen[0]["grad_norm", "total"] == pytest.approx(expected.item())


def test_a_skipped_step_is_not_seen_and_not_counted() -> None:
    seen = run(SGD, False, [1.0, math.inf, 2.0])
    assert [snapshot.step for snapshot in seen] == [0, 1]


def test_a_skipped_step_of_a_fused_optimizer_is_seen_as_what_it_is() -> None:
    seen = run(SGD, True, [1.0, math.inf, 2.0])
    finite = [math.isfinite(snapshot["grad_norm", "total"]) for snapshot in seen]
    assert finite == [True, False, True]
