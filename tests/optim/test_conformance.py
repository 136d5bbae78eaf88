"""Every optimizer, with every option, does what torch's of the same name does.

Both run the same updates in the same order, so the results agree to rounding: the
tolerance is one rounding error an update.
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import gradlab.optim

STEPS = 1000


class Case(NamedTuple):
    name: str
    options: dict[str, Any]

    def ours(self, params: Iterable[Any], **more: Any) -> torch.optim.Optimizer:
        return getattr(gradlab.optim, self.name)(params, **{**self.options, **more})

    def torchs(self, params: Iterable[Any], **more: Any) -> torch.optim.Optimizer:
        return getattr(torch.optim, self.name)(params, **{**self.options, **more})


CASES = {
    "SGD": Case("SGD", {"lr": 0.1}),
    "SGD-decay": Case("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    "SGD-momentum": Case("SGD", {"lr": 0.01, "momentum": 0.9}),
    "SGD-dampening": Case("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "SGD-nesterov": Case("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "SGD-nesterov-decay": Case(
        "SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    ),
    "SGD-maximize": Case(
        "SGD", {"lr": 1e-4, "momentum": 0.5, "weight_decay": 0.01, "maximize": True}
    ),
    "RMSprop": Case("RMSprop", {}),
    "RMSprop-decay": Case("RMSprop", {"alpha": 0.9, "weight_decay": 0.01}),
    "RMSprop-momentum": Case("RMSprop", {"lr": 1e-3, "momentum": 0.9, "eps": 1e-4}),
    "RMSprop-centered": Case("RMSprop", {"centered": True}),
    "RMSprop-maximize": Case(
        "RMSprop",
        {"lr": 1e-4, "centered": True, "momentum": 0.5, "maximize": True},
    ),
    "Adam": Case("Adam", {"lr": 0.01}),
    "Adam-betas": Case("Adam", {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-4}),
    "Adam-decay": Case("Adam", {"lr": 0.01, "weight_decay": 0.01}),
    "Adam-amsgrad": Case("Adam", {"lr": 0.01, "amsgrad": True}),
    "Adam-maximize": Case(
        "Adam", {"lr": 1e-4, "maximize": True, "amsgrad": True, "weight_decay": 0.01}
    ),
    "Adam-decoupled": Case(
        "Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}
    ),
    "AdamW": Case("AdamW", {"lr": 0.01}),
    "AdamW-no-decay": Case("AdamW", {"lr": 0.01, "weight_decay": 0.0}),
    "AdamW-amsgrad": Case("AdamW", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "AdamW-maximize": Case("AdamW", {"lr": 1e-4, "maximize": True}),
}
ONE_EACH = ["SGD-nesterov", "RMSprop-momentum", "Adam-amsgrad", "AdamW"]

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
one_each = pytest.mark.parametrize("case", [CASES[k] for k in ONE_EACH], ids=ONE_EACH)


def parameters(*dtypes: torch.dtype) -> list[Tensor]:
    """A matrix, a vector, a scalar, an empty and a transposed one of each dtype."""
    return [
        make(dtype).requires_grad_()
        for dtype in dtypes
        for make in (
            lambda dtype: torch.randn(3, 4, dtype=dtype),
            lambda dtype: torch.randn(5, dtype=dtype),
            lambda dtype: torch.randn((), dtype=dtype),
            lambda dtype: torch.randn(0, dtype=dtype),
            lambda dtype: torch.randn(4, 2, dtype=dtype).t(),
        )
    ]


def twins(params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return params, copy.deepcopy(params)


def give_gradients(step: int, *models: list[Tensor]) -> None:
    """Gradients of a noisy quadratic bowl, from gentle to steep, at the parameters."""
    for params in models:
        generator = torch.Generator().manual_seed(step)
        for i, p in enumerate(params):
            with torch.no_grad():
                noise = torch.randn(p.shape, generator=generator).to(p.dtype)
                p.grad = (p - 1) * 4.0 ** (1 - i % 5) + noise


def train(
    optimizers: Iterable[torch.optim.Optimizer],
    *models: list[Tensor],
    steps: range,
    after: Callable[[int], object] = lambda step: None,
) -> None:
    optimizers = list(optimizers)
    for step in steps:
        give_gradients(step, *models)
        for optimizer in optimizers:
            optimizer.step()
        after(step)


def assert_same(ours: list[Tensor], torchs: list[Tensor], steps: int) -> None:
    for a, b in zip(ours, torchs, strict=True):
        tolerance = steps * torch.finfo(b.dtype).eps
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def saved(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@every_case
def test_a_thousand_updates(case: Case, dtype: torch.dtype) -> None:
    ours, torchs = twins(parameters(dtype))
    start = copy.deepcopy(ours)
    optimizers = case.ours(ours), case.torchs(torchs)
    train(optimizers, ours, torchs, steps=range(STEPS))
    assert_same(ours, torchs, STEPS)
    assert not torch.equal(ours[0], start[0])


@one_each
def test_a_network_learns_alike(case: Case) -> None:
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    nets = net, copy.deepcopy(net)
    optimizers = case.ours(net.parameters()), case.torchs(nets[1].parameters())
    x = torch.randn(32, 2, dtype=torch.float64)
    y = x.prod(1, keepdim=True)
    losses: tuple[list[float], list[float]] = ([], [])
    for _ in range(200):
        for module, optimizer, history in zip(nets, optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(module(x), y)
            loss.backward()
            optimizer.step()
            history.append(loss.item())
    tolerance = 200 * torch.finfo(torch.float64).eps
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)
    assert losses[0][-1] < losses[0][0]


@every_case
def test_mixed_dtypes(case: Case) -> None:
    dtypes = torch.float32, torch.float64, torch.bfloat16
    ours, torchs = twins(parameters(*dtypes))
    train([case.ours(ours), case.torchs(torchs)], ours, torchs, steps=range(20))
    assert_same(ours, torchs, 20)


@every_case
def test_complex_parameters(case: Case) -> None:
    ours, torchs = twins(parameters(torch.complex128, torch.float64))
    train([case.ours(ours), case.torchs(torchs)], ours, torchs, steps=range(20))
    assert_same(ours, torchs, 20)
    assert ours[0].is_complex()


@every_case
def test_state_dict_has_torchs_keys(case: Case) -> None:
    ours, torchs = twins(parameters(torch.float64, torch.complex64))
    optimizers = case.ours(ours), case.torchs(torchs)
    train(optimizers, ours, torchs, steps=range(3))
    mine, theirs = (optimizer.state_dict() for optimizer in optimizers)
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()
    for i, row in theirs["state"].items():
        assert mine["state"][i].keys() == row.keys()
        for key, value in row.items():
            torch.testing.assert_close(mine["state"][i][key], value)
            assert mine["state"][i][key].stride() == value.stride()


@pytest.mark.parametrize("direction", ["from torch", "to torch"])
@every_case
def test_state_dict_moves(case: Case, direction: str) -> None:
    moved, stayed = twins(parameters(torch.float64))
    stays = case.torchs(stayed)
    if direction == "from torch":
        before, after = case.torchs(moved), case.ours(moved)
    else:
        before, after = case.ours(moved), case.torchs(moved)
    train([before, stays], moved, stayed, steps=range(10))
    after.load_state_dict(saved(before))
    train([after, stays], moved, stayed, steps=range(10, 20))
    assert_same(moved, stayed, 20)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["SGD-momentum", "Adam", "AdamW"])
def test_state_of_another_implementation(name: str, fused: bool) -> None:
    case = CASES[name]
    moved, stayed = twins(parameters(torch.float64))
    before, stays = case.torchs(moved, fused=fused), case.torchs(stayed)
    train([before, stays], moved, stayed, steps=range(10))
    after = case.ours(moved)
    after.load_state_dict(saved(before))
    train([after, stays], moved, stayed, steps=range(10, 20))
    assert_same(moved, stayed, 20)
    assert after.param_groups[0]["fused"] is None


@every_case
def test_copies_and_pickles_go_on_alike(case: Case) -> None:
    params = parameters(torch.float64)
    optimizer = case.ours(params)
    train([optimizer], params, steps=range(5))
    copied, copy_params = copy.deepcopy((optimizer, params))
    loaded, loaded_params = pickle.loads(pickle.dumps((optimizer, params)))
    train([optimizer, copied], params, copy_params, steps=range(5, 10))
    train([loaded], loaded_params, steps=range(5, 10))
    assert_same(copy_params, params, 0)
    assert_same(loaded_params, params, 0)


@every_case
def test_a_late_first_gradient(case: Case) -> None:
    ours, torchs = twins(parameters(torch.float64))
    optimizers = case.ours(ours), case.torchs(torchs)
    start = ours[1].detach().clone()
    for step in range(12):
        give_gradients(step, ours, torchs)
        if step < 5:
            ours[1].grad = torchs[1].grad = None
        for optimizer in optimizers:
            optimizer.step()
        if step == 4:
            assert torch.equal(ours[1], start)
            assert ours[1] not in optimizers[0].state
    assert_same(ours, torchs, 12)
    if "step" in optimizers[0].state[ours[1]]:
        assert optimizers[0].state[ours[0]]["step"] == 12
        assert optimizers[0].state[ours[1]]["step"] == 7


@every_case
def test_groups_of_their_own(case: Case) -> None:
    ours, torchs = twins(parameters(torch.float64))
    pairs = [(case.ours, ours), (case.torchs, torchs)]
    optimizers = [
        make([{"params": p[:1]}, {"params": p[1:2], "lr": 0.003, "maximize": True}])
        for make, p in pairs
    ]
    train(optimizers, ours, torchs, steps=range(5))
    for optimizer, (_, p) in zip(optimizers, pairs, strict=True):
        optimizer.add_param_group({"params": p[2:], "weight_decay": 0.2})
    train(optimizers, ours, torchs, steps=range(5, 10))
    assert_same(ours, torchs, 10)


@every_case
def test_a_tensor_for_a_learning_rate(case: Case) -> None:
    ours, torchs = twins(parameters(torch.float64))
    rates = [torch.tensor(0.01, dtype=torch.float64) for _ in range(2)]
    optimizers = case.ours(ours, lr=rates[0]), case.torchs(torchs, lr=rates[1])

    def halve(step: int) -> None:
        for rate in rates:
            rate.mul_(0.5)

    train(optimizers, ours, torchs, steps=range(6), after=halve)
    assert_same(ours, torchs, 6)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.02, total_steps=30),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.StepLR(o, 5)],
        milestones=[10],
    ),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@one_each
def test_schedulers(
    case: Case, make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]
) -> None:
    ours, torchs = twins(parameters(torch.float64))
    optimizers = case.ours(ours), case.torchs(torchs)
    schedulers = [make(optimizer) for optimizer in optimizers]
    seen: list[Any] = []

    def advance(step: int) -> None:
        for scheduler in schedulers:
            scheduler.step()
        groups = [dict(optimizer.param_groups[0]) for optimizer in optimizers]
        for group in groups:
            del group["params"]
        assert groups[0] == groups[1]
        seen.append((groups[0]["lr"], groups[0].get("momentum")))

    train(optimizers, ours, torchs, steps=range(25), after=advance)
    assert_same(ours, torchs, 25)
    assert len(set(seen)) > 5 or make is SCHEDULERS["SequentialLR"]


@one_each
def test_reduce_on_plateau(case: Case) -> None:
    ours, torchs = twins(parameters(torch.float64))
    optimizers = case.ours(ours), case.torchs(torchs)
    schedulers = [lr_scheduler.ReduceLROnPlateau(o, patience=1) for o in optimizers]
    rate = optimizers[0].param_groups[0]["lr"]

    def advance(step: int) -> None:
        for scheduler in schedulers:
            scheduler.step(1.0)

    train(optimizers, ours, torchs, steps=range(6), after=advance)
    assert_same(ours, torchs, 6)
    assert optimizers[0].param_groups[0]["lr"] < rate


@every_case
def test_closures(case: Case) -> None:
    ours, torchs = twins(parameters(torch.float64))
    losses: list[list[float]] = []
    for params, optimizer in (ours, case.ours(ours)), (torchs, case.torchs(torchs)):

        def closure(
            params: list[Tensor] = params,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> float:
            optimizer.zero_grad()
            loss = torch.stack([(p - 1).square().sum() for p in params]).sum()
            loss.backward()
            return loss.item()

        losses.append([optimizer.step(closure) for _ in range(5)])
        assert optimizer.step() is None
    assert losses[0] == losses[1]
    assert_same(ours, torchs, 6)


@every_case
def test_grad_scaler(case: Case) -> None:
    ours, torchs = twins(parameters(torch.float32))
    optimizers = case.ours(ours), case.torchs(torchs)
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0) for _ in optimizers]
    for step in range(6):
        give_gradients(step, ours, torchs)
        before = copy.deepcopy(ours)
        for params, optimizer, scaler in zip(
            (ours, torchs), optimizers, scalers, strict=True
        ):
            scaler.scale(torch.zeros(()))
            for p in params:
                assert p.grad is not None
                p.grad *= scaler.get_scale()
            if step == 3:
                params[0].grad = torch.full_like(params[0], float("inf"))
            scaler.step(optimizer)
            scaler.update()
        assert torch.equal(before[0], ours[0]) == (step == 3)
    assert scalers[0].get_scale() == scalers[1].get_scale() == 4.0
    assert_same(ours, torchs, 6)


@every_case
def test_lists_longer_than_one_bucket(case: Case) -> None:
    sizes = 5, 300_000, 3, 600_000, 200_000, 300_000, 0, 1
    params = [torch.randn(n).requires_grad_() for n in sizes]
    ours, torchs = twins(params)
    train([case.ours(ours), case.torchs(torchs)], ours, torchs, steps=range(3))
    assert_same(ours, torchs, 3)


@every_case
def test_gradients_are_left_alone(case: Case) -> None:
    params = parameters(torch.float64)
    optimizer = case.ours(params)
    for step in range(3):
        give_gradients(step, params)
        grads = [p.grad for p in params if p.grad is not None]
        values = [grad.clone() for grad in grads]
        versions = [grad._version for grad in grads]
        optimizer.step()
        assert [grad._version for grad in grads] == versions
        assert all(p.grad is grad for p, grad in zip(params, grads, strict=True))
        for grad, value in zip(grads, values, strict=True):
            assert torch.equal(grad, value)


@one_each
def test_no_graph_is_built(case: Case) -> None:
    (p,) = params = [torch.randn(3, requires_grad=True)]
    optimizer = case.ours(params)
    p.grad = torch.autograd.grad(p.pow(3).sum(), p, create_graph=True)[0]
    for _ in range(2):
        optimizer.step()
    assert p.is_leaf
    assert p.grad.requires_grad
    assert not any(value.requires_grad for value in optimizer.state[p].values())
    assert torch.is_grad_enabled()


@one_each
def test_named_parameters(case: Case) -> None:
    module = nn.Linear(2, 2)
    optimizer = case.ours(module.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_constructors_take_the_same_arguments(name: str) -> None:
    ours, torchs = (
        inspect.signature(getattr(module, name)).parameters
        for module in (gradlab.optim, torch.optim)
    )
    assert list(ours) == list(torchs)
    for key, parameter in torchs.items():
        assert ours[key].default == parameter.default
        assert ours[key].kind == parameter.kind
