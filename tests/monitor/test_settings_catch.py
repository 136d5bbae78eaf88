"""A monitor that breaks a promise is caught by the property that states it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from gradlab import Monitor, Snapshot
from gradlab.quantities import GradNorm, OutputGradRMS
from tests.monitor.settings import PROPERTIES, SETTINGS, failures

Patch = pytest.MonkeyPatch


def beside(owner: Any, name: str, more: Callable[..., object]) -> Callable[..., Any]:
    """The method, that does something else too."""
    method = getattr(owner, name)

    def both(self: Any, *args: Any, **options: Any) -> Any:
        more(self, *args)
        return method(self, *args, **options)

    return both


def times(kind: Any, factor: float) -> Callable[..., Any]:
    """The quantity, multiplied."""
    formula = kind.__call__
    return lambda self, *args: formula(self, *args) * factor


def draws_a_random_number(patch: Patch) -> None:
    patch.setattr(
        GradNorm, "__call__", beside(GradNorm, "__call__", lambda *args: torch.rand(1))
    )


def touches_a_gradient(patch: Patch) -> None:
    def touch(optimizer: Optimizer, *args: Any) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(1 + 1e-6)

    def hook(monitor: Monitor, optimizer: Optimizer) -> None:
        optimizer.register_step_pre_hook(touch)

    patch.setattr(Monitor, "attach", beside(Monitor, "attach", hook))


def multiplies_the_norm(patch: Patch) -> None:
    patch.setattr(GradNorm, "__call__", times(GradNorm, 1.0001))


def names_another_stage(patch: Patch) -> None:
    def rename(snapshot: Snapshot) -> None:
        object.__setattr__(snapshot, "stage", "clipped")

    patch.setattr(Snapshot, "__post_init__", beside(Snapshot, "__post_init__", rename))


def counts_from_one(patch: Patch) -> None:
    def skip(monitor: Monitor, optimizer: Optimizer) -> None:
        monitor.step += 1

    patch.setattr(Monitor, "attach", beside(Monitor, "attach", skip))


def multiplies_the_output_gradient(patch: Patch) -> None:
    patch.setattr(OutputGradRMS, "__call__", times(OutputGradRMS, 1.0001))


def does_not_let_go(patch: Patch) -> None:
    patch.setattr(Monitor, "detach", lambda self: None)


def leaves_what_cannot_be_pickled(patch: Patch) -> None:
    def leave(monitor: Monitor, *args: Any) -> None:
        monitor.model.note = lambda: None

    patch.setattr(Monitor, "attach", beside(Monitor, "attach", leave))


def warns(patch: Patch) -> None:
    patch.setattr(
        Monitor,
        "attach",
        beside(Monitor, "attach", lambda *args: warnings.warn("hm", stacklevel=2)),
    )


SABOTAGES: list[tuple[Callable[[Patch], None], str]] = [
    (draws_a_random_number, "changes_nothing"),
    (touches_a_gradient, "changes_nothing"),
    (multiplies_the_norm, "total_is_clippings"),
    (names_another_stage, "stage_is_said"),
    (counts_from_one, "every_step_once"),
    (multiplies_the_output_gradient, "activations_are_right"),
    (does_not_let_go, "leaves_no_hook"),
    (leaves_what_cannot_be_pickled, "copies_are_free"),
    (warns, "says_only"),
]


@pytest.mark.parametrize(("sabotage", "caught"), SABOTAGES)
def test_caught(
    sabotage: Callable[[Patch], None], caught: str, monkeypatch: Patch, tmp_path: Path
) -> None:
    sabotage(monkeypatch)
    assert caught in failures(SETTINGS[0], tmp_path, steps=8)


def test_every_property_catches_something() -> None:
    assert {caught for _, caught in SABOTAGES} == set(PROPERTIES)
