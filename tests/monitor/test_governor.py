import math

import pytest
import torch
from torch import nn

from gradlab import Monitor, Snapshot
from gradlab.monitor._governor import Governor
from gradlab.quantities import ActivationRMS, GradNorm, NoiseScale

from .test_microbatches import hooks


def drive(
    governor: Governor, costs: dict[str, float], steps: int, step: float = 1.0
) -> dict[str, int]:
    """A run on a clock of its own: how often each tier was read."""
    now, reads = 0.0, dict.fromkeys(costs, 0)
    next_read = dict.fromkeys(costs, 0)
    for i in range(steps):
        governor.step(now)
        now += step
        for tier, cost in costs.items():
            if i >= next_read[tier]:
                reads[tier] += 1
                now += cost
                governor.spent(tier, cost)
                next_read[tier] = i + governor.wait(tier)
    governor.step(now)
    return reads


@pytest.mark.parametrize("budget", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("cost", [0.0001, 0.05, 2.0])
def test_the_budget_is_kept_and_used(budget: float, cost: float) -> None:
    governor = Governor(budget, ["gradient"])
    reads = drive(governor, {"gradient": cost}, 20_000)
    assert governor.overhead <= budget + 2 * cost / 20_000
    # All of it is used, unless every step is read already.
    assert reads["gradient"] > 19_990 or governor.overhead > 0.8 * budget


def test_what_a_cheap_tier_does_not_need_goes_to_a_dear_one() -> None:
    governor = Governor(0.02, ["gradient", "activation"])
    reads = drive(governor, {"gradient": 0.001, "activation": 0.2}, 5000)
    assert reads["gradient"] > 4990
    assert 400 < reads["activation"] < 600
    assert governor.overhead == pytest.approx(0.02, rel=0.1)


def test_one_slow_reading_is_paid_for_and_forgotten() -> None:
    governor = Governor(0.1, ["gradient"])
    drive(governor, {"gradient": 0.01}, 10)
    governor.spent("gradient", 5.0)
    assert governor.wait("gradient") > 40
    assert drive(governor, {"gradient": 0.01}, 200)["gradient"] > 50


def test_a_pause_does_not_pay_for_a_burst() -> None:
    governor = Governor(0.01, ["gradient"])
    drive(governor, {"gradient": 0.1}, 100)
    governor.step(1e6)
    governor.spent("gradient", 0.1)
    assert governor.wait("gradient") == 1
    governor.spent("gradient", 0.1)
    assert math.isfinite(governor.overhead)


@pytest.mark.parametrize("budget", [0, 1, -0.1, 2, True, "2%", math.nan])
def test_a_budget_is_a_share(budget: float) -> None:
    with pytest.raises(ValueError, match="a budget is the share of the run's time"):
        Governor(budget, ["gradient"])


def test_a_monitor_reads_less_and_says_what_it_takes() -> None:
    seen: list[Snapshot] = []
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with Monitor(model, optimizer, budget=1e-4, activations=True, sinks=[seen.append]):
        for _ in range(60):
            optimizer.zero_grad()
            model(torch.ones(2, 8)).sum().backward()
            optimizer.step()
    read = [s.step for s in seen if "grad_norm" in s.quantities]
    assert read[0] == 0
    assert len(read) < 20
    shares = [s["overhead", "total"] for s in seen if s.quantities == ("overhead",)]
    # Before the second step there is no time to compare with.
    assert math.isnan(shares[0])
    assert all(share > 0 for share in shares[1:])


@pytest.mark.filterwarnings("ignore")  # Of dynamo, where it traces hooks.
@pytest.mark.parametrize("compiled", [False, True])
def test_hooks_rest_between_readings_and_are_back_for_the_next(compiled: bool) -> None:
    # What other tests have compiled must not make it give up on tracing.
    torch._dynamo.reset()
    seen: list[Snapshot] = []
    model = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(8, 8), nn.Tanh())))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    batch, hooked = torch.randn(2, 8), []
    watched = (GradNorm(), ActivationRMS(), NoiseScale())
    with Monitor(
        model, optimizer, budget=0.1, quantities=watched, sinks=[seen.append]
    ) as monitor:
        forward = torch.compile(model, backend="eager") if compiled else model
        tiers = monitor._reader._tiers
        assert tiers._governor is not None
        # A reading is earned by ten steps, whatever the machine.
        tiers._governor.wait = lambda tier: 10
        for _ in range(34):
            hooked.append(
                (
                    sum(len(m._forward_hooks) for m in model),
                    sum(bool(hooks(p)) for p in model.parameters()),
                )
            )
            optimizer.zero_grad()
            for _ in range(2):
                forward(batch).sum().backward()
            optimizer.step()
    for name in ("activation_rms", "noise_scale"):
        rows = [(s.step, int(s.available.sum())) for s in seen if name in s.quantities]
        assert [step for step, _ in rows] == [0, 10, 20, 30]
        # Each module, or each parameter and their sums.
        assert len({there for _, there in rows}) == 1
        assert rows[0][1] >= 8
    on = [0, 9, 10, 19, 20, 29, 30]
    assert [i for i, (_, parameters) in enumerate(hooked) if parameters] == on
    assert all(parameters in (0, 8) for _, parameters in hooked)
    modules = [i for i, (modules, _) in enumerate(hooked) if modules == 8]
    assert modules == (list(range(34)) if compiled else on)
    assert not any(m._forward_hooks for m in model)


def test_what_hooks_take_is_part_of_the_overhead() -> None:
    governor = Governor(0.1, ["gradient"])
    governor.step(0.0)
    governor.passed(0.05)
    governor.step(1.05)
    assert governor.overhead == pytest.approx(0.05)
    governor.spent("gradient", 0.1)
    # Half of the budget is left: it takes two seconds to earn a tenth.
    assert governor.wait("gradient") in (3, 4)
    governor.passed(10.0)
    assert math.isfinite(governor.wait("gradient"))
