"""The noise scale, against problems where it is known and sums written out."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab import Monitor, Snapshot
from gradlab.quantities import NoiseScale, RankGradNorm

from .test_distributed import loaded, two_ranks

FEATURES = 50


def watched(
    monitored: nn.Module, optimizer: Any, *quantities: Any, **options: Any
) -> tuple[Monitor, list[Snapshot]]:
    seen: list[Snapshot] = []
    chosen = quantities or (NoiseScale(decay=0.0),)
    monitor = Monitor(
        monitored, optimizer, quantities=chosen, sinks=[seen.append], **options
    )
    return monitor, seen


def hooks(parameter: Any) -> Any:
    return parameter._post_accumulate_grad_hooks


def noise_scale(
    noise: float,
    microbatches: list[int],
    divided: bool = True,
    clip: bool = False,
    set_to_none: bool = True,
) -> list[float]:
    """Of gradients that are a constant of norm 1 plus noise of a known trace."""
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, 1, bias=False)
    mean = nn.functional.normalize(torch.randn(FEATURES), dim=0)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    monitor, seen = watched(model, optimizer, NoiseScale(decay=0.998))
    for step in range(240):
        optimizer.zero_grad(set_to_none=set_to_none)
        for _ in range(microbatches[step % len(microbatches)]):
            x = mean + math.sqrt(noise / FEATURES) * torch.randn(FEATURES)
            loss = model(x).sum()
            (loss / microbatches[0] if divided else loss).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    monitor.detach()
    return [snapshot["noise_scale", "total"] for snapshot in seen]


@pytest.mark.parametrize("noise", [0.5, 4.0])
@pytest.mark.parametrize(
    "loop",
    [
        {"microbatches": [2]},
        {"microbatches": [4], "divided": False},
        {"microbatches": [4], "clip": True, "set_to_none": False},
        {"microbatches": [4, 4, 4, 2]},
    ],
    ids=["two", "undivided", "clipped", "partial last window"],
)
def test_a_known_noise_scale_is_found(noise: float, loop: dict[str, Any]) -> None:
    found = noise_scale(noise, **loop)
    assert len(found) == 240
    assert found[-1] == pytest.approx(noise, rel=0.15)


def test_a_single_microbatch_tells_nothing() -> None:
    assert noise_scale(1.0, [1]) == []
    # It goes on where there are several again.
    assert len(noise_scale(1.0, [2, 1, 1])) == 80


def test_the_estimate_is_the_one_of_two_batch_sizes() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, seen = watched(model, optimizer)
    grads = []
    for _ in range(3):
        (model["used"](1 + torch.randn(4, 3)) - 9).square().mean().backward()
        grads.append(model["used"].weight.grad.clone())
    optimizer.step()
    monitor.detach()
    small, large = grads[0].square().sum(), (grads[2] / 3).square().sum()
    signal, noise = (3 * large - small) / 2, (small - large) / (1 - 1 / 3)
    found = seen[0].scalars(parameters=True)
    assert signal > 0
    expected = (noise.clamp(min=0) / signal).item()
    assert found["noise_scale/used/weight"] == pytest.approx(expected, rel=1e-4)
    assert {tag.split("/", 1)[1] for tag in found} == {
        "total",
        "used",
        "used/weight",
        "used/bias",
    }
    assert seen[0].stage == "raw"


def test_what_is_not_finite_is_left_out_of_the_average() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    monitor, seen = watched(model, optimizer, NoiseScale(decay=0.5))
    for bad in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        for x in ([1.0, bad], [2.0, 1.0]):
            model(torch.tensor(x)).sum().backward()
        optimizer.step()
    monitor.detach()
    first, _, last = (snapshot["noise_scale", "total"] for snapshot in seen)
    assert math.isfinite(first)
    assert last == pytest.approx(first)


@pytest.mark.parametrize("given", [True, False])
def test_a_loss_scale_is_divided_out(given: bool) -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    options = {"scaler": scaler} if given else {}
    monitor, seen = watched(model, optimizer, RankGradNorm(), **options)
    scaler.scale(model(torch.tensor([3.0, 4.0])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    monitor.detach()
    assert seen[0]["rank_grad_norm", "total"] == 5.0


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_no_second_microbatch(reentrant: bool) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 1)
    model = nn.Sequential(first, second)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, seen = watched(model, optimizer)
    x = torch.randn(4, 3, requires_grad=True)
    for _ in range(2):
        hidden: Any = checkpoint(first, x, use_reentrant=reentrant)
        second(hidden).sum().backward()
    optimizer.step()
    monitor.detach()
    # Both microbatches are the same: no noise.
    assert seen[0]["noise_scale", "total"] == pytest.approx(0.0, abs=1e-5)


def test_nothing_changes_and_nothing_is_left() -> None:
    def run(watch: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        monitor = None
        if watch:
            monitor, _ = watched(model, optimizer, NoiseScale(), RankGradNorm())
        for step in range(20):
            optimizer.zero_grad()
            for _ in range(1 + step % 3):
                model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
            if watch and step == 10:
                copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
                assert not any(map(hooks, copied.parameters()))
        if monitor:
            monitor.detach()
            assert not any(map(hooks, model.parameters()))
        return [p.detach() for p in model.parameters()]

    for plain, seen in zip(run(False), run(True), strict=True):
        assert torch.equal(plain, seen)


def test_ranks_of_ddp_are_microbatches_too(tmp_path: Path) -> None:
    found = two_ranks("noise_rank.py", tmp_path)
    single = loaded("noise_rank.py")
    model = single.build()
    alone = single.watch(model, model, single.batches())
    noise = [one["noise_scale/total"] for one in alone if "noise_scale/total" in one]
    model = single.build()
    whole = single.watch(model, model, single.batches())
    for sharded, plain in zip(found[0]["shards"], whole, strict=True):
        if "noise_scale/total" in plain:
            assert sharded == pytest.approx(plain, rel=1e-3)
    for name in ("views", "copies"):
        for rank, runs in enumerate(found):
            seen = runs[f"two microbatches, {name}"]
            mine = [s["noise_scale/total"] for s in seen if "noise_scale/total" in s]
            assert len(mine) == 3
            if rank == 0:
                # Its first microbatch is the first of all four.
                assert mine == pytest.approx(noise, rel=1e-3)
            seen = runs[f"one microbatch, {name}"]
            assert sum("noise_scale/total" in one for one in seen) == 3
            # Of its own microbatch, and not clipped.
            model = single.build()
            model(single.batches()[0, rank]).square().mean().backward()
            own = nn.utils.get_total_norm([p.grad for p in model.parameters()])
            norms = [
                s["rank_grad_norm/total"] for s in seen if "rank_grad_norm/total" in s
            ]
            assert norms[0] == pytest.approx(own.item(), rel=1e-5)
