"""What `Optimizer` gives every rule: hooks, checks, guards, messages that help."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from gradlab.optim import SGD, Adam, AdamW, Bucket, Optimizer, RMSprop

Rule = Callable[..., Optimizer]
RULES: list[type[Optimizer]] = [SGD, RMSprop, Adam, AdamW]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


def parameter(*size: int) -> Tensor:
    p = torch.randn(*size).requires_grad_()
    p.grad = torch.randn(*size)
    return p


@every_rule
def test_is_a_torch_optimizer(rule: Rule) -> None:
    assert isinstance(rule([parameter(2)]), torch.optim.Optimizer)


@every_rule
def test_hooks_fire_once_around_the_update(rule: Rule) -> None:
    p = parameter(2)
    optimizer = rule([p])
    start = p.detach().clone()
    seen: list[tuple[str, bool]] = []

    def hook(name: str) -> Any:
        return lambda *_: seen.append((name, torch.equal(p, start)))

    handles = [
        register_optimizer_step_pre_hook(hook("global before")),
        register_optimizer_step_post_hook(hook("global after")),
        optimizer.register_step_pre_hook(hook("before")),
        optimizer.register_step_post_hook(hook("after")),
    ]
    optimizer.step()
    for handle in handles:
        handle.remove()
    assert seen == [
        ("global before", True),
        ("before", True),
        ("after", False),
        ("global after", False),
    ]
    optimizer.step()
    assert len(seen) == 4


def test_a_hook_may_change_the_arguments() -> None:
    optimizer = SGD([parameter(2)])
    optimizer.register_step_pre_hook(lambda *_: ((optimizer, lambda: 3.0), {}))
    assert optimizer.step() == 3.0


@every_rule
def test_without_gradients_nothing_happens(rule: Rule) -> None:
    p = torch.randn(2).requires_grad_()
    optimizer = rule([p])
    start = p.detach().clone()
    optimizer.step()
    assert torch.equal(p, start)
    assert optimizer.state_dict()["state"] == {}


@every_rule
def test_a_closure_has_gradients_on(rule: Rule) -> None:
    modes: list[bool] = []

    def closure() -> float:
        modes.append(torch.is_grad_enabled())
        return 1.0

    optimizer = rule([parameter(2)])
    with torch.no_grad():
        assert optimizer.step(closure) == 1.0
    assert modes == [True]


@every_rule
def test_sparse_gradients_are_refused(rule: Rule) -> None:
    p = parameter(2)
    p.grad = torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match=r"dense, got.*sparse_coo.*SparseAdam"):
        rule([p]).step()


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (SGD, {"lr": -0.1}, "lr must be at least 0, got -0.1; .* maximize=True"),
        (SGD, {"lr": float("nan")}, "lr must be at least 0, got nan"),
        (SGD, {"lr": torch.ones(2)}, r"one element, got shape \(2,\)"),
        (SGD, {"momentum": -1}, "momentum must be at least 0, got -1; 0 switches"),
        (SGD, {"weight_decay": -1}, "weight_decay must be at least 0, got -1"),
        (SGD, {"nesterov": True}, "nesterov needs momentum > 0 .* got momentum=0"),
        (
            SGD,
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            "dampening=0.1; pass momentum=0.9, dampening=0, or nesterov=False",
        ),
        (RMSprop, {"lr": -0.1}, "lr must be at least 0"),
        (RMSprop, {"alpha": -0.1}, "alpha must be at least 0"),
        (RMSprop, {"eps": -0.1}, "eps must be at least 0"),
        (RMSprop, {"momentum": -0.1}, "momentum must be at least 0"),
        (RMSprop, {"weight_decay": -0.1}, "weight_decay must be at least 0"),
        (Adam, {"lr": -0.1}, "lr must be at least 0"),
        (Adam, {"eps": -0.1}, "eps must be at least 0, got -0.1; try 1e-8"),
        (Adam, {"weight_decay": -0.1}, "weight_decay must be at least 0"),
        (Adam, {"betas": (-0.1, 0.9)}, r"betas\[0\] must be in \[0, 1\), got -0.1"),
        (Adam, {"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1.0"),
        (AdamW, {"weight_decay": -0.1}, "weight_decay must be at least 0"),
        (AdamW, {"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1.0"),
    ],
)
def test_options_out_of_range(
    rule: Rule, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rule([parameter(2)], **options)


@every_rule
def test_a_group_is_checked_too(rule: Rule) -> None:
    optimizer = rule([parameter(2)])
    with pytest.raises(ValueError, match="lr must be at least 0, got -1"):
        optimizer.add_param_group({"params": [parameter(2)], "lr": -1})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foreach": False}, "foreach must be None or True, got False"),
        ({"fused": True}, "fused must be None or False, got True: .* torch.optim.Adam"),
        ({"capturable": True}, "capturable must be None or False, got True"),
        ({"differentiable": True}, "differentiable must be None or False, got True"),
    ],
)
def test_other_implementations_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Adam([parameter(2)], **options)


def test_switches_that_change_nothing_are_taken() -> None:
    for rule in SGD, Adam, AdamW:
        p = [parameter(2)]
        rule(p, foreach=True, fused=False, differentiable=False).step()


def test_a_missing_update_is_told_at_once() -> None:
    class Nothing(Optimizer):
        pass

    with pytest.raises(TypeError, match=r"abstract.*update"):
        Nothing([parameter(2)], {"lr": 0.1})  # type: ignore[abstract]


def test_the_count_is_not_captured_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with FakeTensorMode():
        p = torch.randn(2, device="cuda")
        p.grad = torch.ones_like(p)
        bucket = Bucket([p], {p: {}}, first=True, maximize=False)
        message = re.escape("outside of CUDA graphs")
        with pytest.raises(RuntimeError, match=message):
            bucket.count()


def test_counts_are_read_from_old_checkpoints() -> None:
    optimizer = Adam([parameter(2)])
    optimizer.step()
    checkpoint = optimizer.state_dict()
    checkpoint["state"][0]["step"] = 41
    optimizer.load_state_dict(checkpoint)
    optimizer.step()
    assert optimizer.state_dict()["state"][0]["step"].item() == 42
