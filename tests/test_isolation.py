"""Whatever kills, blocks or bloats the child is a finding, and the parent lives on."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab._gradcheck import gradcheck
from gradlab._report import Report
from gradlab.checks import MatchesReference


def square_with(backward: Callable[[Tensor, Tensor], Tensor]) -> Any:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

    def of_ctx(ctx: Any, grad_y: Tensor) -> Tensor:
        return backward(ctx.saved_tensors[0], grad_y)

    of_ctx.__name__ = of_ctx.__qualname__ = "backward"
    of_ctx.__code__ = of_ctx.__code__.replace(co_name="backward")
    return type("Square", (Square,), {"backward": staticmethod(of_ctx)})


def check(fn: Any, **options: Any) -> Report:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    return gradcheck(fn, x, **{"level": "value", "isolate": True, **options})


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """What torch imports at its first check takes time that no limit here allows."""
    check(square_with(lambda x, grad_y: 2 * grad_y * x), isolate=False)


def leaves(x: Tensor, grad_y: Tensor) -> Tensor:
    os._exit(3)


def exits(x: Tensor, grad_y: Tensor) -> Tensor:
    raise SystemExit(4)


def segfaults(x: Tensor, grad_y: Tensor) -> Tensor:
    ctypes.string_at(0)
    return grad_y


def aborts(x: Tensor, grad_y: Tensor) -> Tensor:
    os.abort()


def hangs(x: Tensor, grad_y: Tensor) -> Tensor:
    while True:
        pass


def sleeps(x: Tensor, grad_y: Tensor) -> Tensor:
    time.sleep(60)
    return grad_y


def eats_memory(x: Tensor, grad_y: Tensor) -> Tensor:
    eaten = []
    while True:
        eaten.append(torch.ones(2**20))  # 4 MiB


@pytest.mark.parametrize(
    ("backward", "says"),
    [
        (leaves, "exit status 3"),
        (exits, "exit status 4"),
        (segfaults, "SIGSEGV"),
        (aborts, "SIGABRT"),
    ],
)
def test_a_death_in_the_backward_is_wrong_and_says_where(
    backward: Callable[..., Tensor], says: str
) -> None:
    report = check(square_with(backward))
    assert report.verdict == "wrong"
    assert not report.ok
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("isolated", "error")
    assert finding.message.startswith("the backward ")
    assert says in finding.message
    assert "backward_runs" in finding.message
    assert backward.__name__ in finding.where
    assert __file__.rsplit("/", 1)[-1] in finding.where
    assert (report.subject, report.functions) == ("Square", ("Square",))


@pytest.mark.parametrize("backward", [hangs, sleeps])
def test_a_limit_of_time_is_kept_and_proves_nothing(
    backward: Callable[..., Tensor],
) -> None:
    began = time.monotonic()
    report = check(square_with(backward), timeout=1.5)
    assert time.monotonic() - began < 4
    assert report.verdict == "inconclusive"
    assert not report.ok
    assert "did not finish within 1.5 s" in str(report)
    assert backward.__name__ in report.findings[0].where


def test_a_limit_of_memory_is_kept() -> None:
    report = check(square_with(eats_memory), memory_gib=0.1)
    assert report.verdict == "inconclusive"
    assert "took more than 0.1 GiB" in report.findings[0].message
    assert "eats_memory" in report.findings[0].where


def test_memory_of_the_parent_does_not_count() -> None:
    held = torch.ones(2**26)  # 256 MiB
    assert check(torch.sin, memory_gib=0.2).ok
    assert held[0] == 1


class Kills:
    """A check that the process does not survive."""

    level = "value"

    def __call__(self, subject: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_found_before_the_death_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gradlab._run.checks", (MatchesReference(), Kills()))
    steps: list[str] = []
    half = square_with(lambda x, grad_y: grad_y * x)
    report = check(half, progress=steps.append)
    assert report.verdict == "wrong"
    assert steps == ["forward_runs", "backward_runs", "matches_reference", "kills"]
    codes = [finding.code for finding in report.findings]
    assert codes == ["isolated", "matches_reference"]
    assert "SIGKILL (killed) while kills ran" in report.findings[0].message
    assert "the process ended during kills" in str(report)


def test_a_death_in_the_forward_is_inconclusive() -> None:
    def forward(x: Tensor) -> Tensor:
        os._exit(0)

    report = check(forward)
    assert report.verdict == "inconclusive"
    assert report.findings[0].message.startswith("the forward ended the process")


def test_a_healthy_function_gets_the_report_it_gets_without_isolation() -> None:
    fn = square_with(lambda x, grad_y: 2 * grad_y * x)
    data = check(fn).to_dict() | {"seconds": 0}
    assert data == check(fn, isolate=False).to_dict() | {"seconds": 0}
    assert data["ok"]


def test_bad_input_is_raised_as_it_is_without_isolation() -> None:
    for fn, inputs, kind in [
        (torch.sin, torch.ones(2), ValueError),
        (3, torch.ones(2, requires_grad=True), TypeError),
    ]:
        with pytest.raises(kind) as here:
            gradcheck(fn, inputs)
        with pytest.raises(kind) as isolated:
            gradcheck(fn, inputs, isolate=True)
        assert str(here.value) == str(isolated.value)


@pytest.mark.parametrize("limit", ["timeout", "memory_gib"])
def test_limits_are_positive(limit: str) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be positive, got -1"):
        check(torch.sin, **{limit: -1})


def test_ctrl_c_ends_the_child(tmp_path: Any) -> None:
    pid = tmp_path / "pid"

    def told(x: Tensor, grad_y: Tensor) -> Tensor:
        pid.write_text(str(os.getpid()))
        return hangs(x, grad_y)

    def interrupt(step: str) -> None:
        if step == "backward_runs":
            while not pid.exists() or not pid.read_text():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(square_with(told), progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_where_a_fork_is_impossible_the_check_is_spawned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "fork")
    assert check(torch.sin).verdict == "correct"
    with pytest.raises(ValueError, match=r"cannot be pickled.*at the top of a module"):
        check(square_with(leaves))
