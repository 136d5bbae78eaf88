"""Explicit backwards are compared with their references while a model trains."""

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab import LiveGradcheck, Snapshot, layers, read_run
from gradlab.monitor import Watchdog
from gradlab.monitor._function_calls import _SPIES
from gradlab.pathologies import Finding
from gradlab.tensorboard import EventFileWriter


class Square(torch.autograd.Function):
    """A plain Function that is right, whose `apply` is captured below."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad_y


class WrongBeyondThree(torch.autograd.Function):
    """The identity plus x², with a gradient that is wrong where |x| > 3 only."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x + x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() > 3, grad_y, grad_y * (1 + 2 * x))


class Noise(torch.autograd.Function):
    """A Function that draws random numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mask = torch.rand_like(x) > 0.5
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (mask,) = ctx.saved_tensors
        return grad_y * mask


square = Square.apply


@pytest.fixture(autouse=True)
def _alone() -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    assert not _SPIES


class Net(nn.Module):
    """gradlab's layers, functionals in a forward, and a user's Function."""

    def __init__(self, wide: int = 16) -> None:
        super().__init__()
        self.conv = layers.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(
            layers.MaxPool2d(3, stride=1), nn.Flatten(), layers.Linear(64, wide)
        )
        self.norm = layers.LayerNorm(wide)
        self.head = layers.Linear(wide, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.body(torch.relu(self.conv(x))))
        x = layers.gelu(x) + layers.tanh(x) + layers.sigmoid(x) + square(x) / 8
        x = x + layers.softmax(x, -1) + layers.log_softmax(x, -1) / 8
        return self.head(layers.relu(x, inplace=True))


def batch(n: int = 32, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 1, 6, 6).to(dtype), torch.randint(5, (n,))


def train(
    model: nn.Module,
    steps: int,
    *,
    autocast: torch.dtype | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
    **options: Any,
) -> tuple[list[Snapshot], LiveGradcheck]:
    """Trains with live gradcheck, and returns what it saw."""
    dtype = next(model.parameters()).dtype
    run = model if forward is None else forward
    seen: list[Snapshot] = []
    eps = 1e-4 if dtype == torch.float16 else 1e-8
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=eps)
    scaler = torch.amp.GradScaler("cpu", enabled=autocast == torch.float16)
    options = {"every_n_steps": 1, "sites": 64, "ops": [Square], **options}
    options["sinks"] = [seen.append, *options.get("sinks", ())]
    with LiveGradcheck(model, optimizer, **options) as live:
        for _ in range(steps):
            x, t = batch(dtype=dtype)
            optimizer.zero_grad()
            with torch.autocast("cpu", autocast, enabled=autocast is not None):
                loss = layers.cross_entropy(run(x), t)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert live.lost == 0
    return seen, live


SITES = [
    *("conv:conv2d", "body.0:max_pool2d", "body.2:linear", "norm:layer_norm"),
    *("root:gelu", "root:tanh", "root:sigmoid", "root:Square", "root:softmax"),
    *("root:log_softmax", "root:relu", "head:linear", "root:cross_entropy"),
]


def test_every_call_is_a_row_whoever_makes_it() -> None:
    (snapshot,), live = train(Net(), 1)
    assert [row.name for row in snapshot.rows] == SITES
    assert snapshot.stage == "raw"
    assert snapshot.quantities == (
        *("gradcheck_error", "gradcheck_cosine", "gradcheck_ratio"),
    )
    assert snapshot.available.all()
    assert (snapshot.column("gradcheck_error") < 1e-5).all()
    assert (snapshot.column("gradcheck_cosine") > 0.9999).all()
    assert live.skipped == {}
    notes = {row.name: row.note for row in snapshot.rows}
    assert "_conv2d.py:" in notes["conv:conv2d"]
    assert notes["root:Square"].startswith("Square (")
    assert notes["root:Square"].endswith("in float32")


@pytest.mark.parametrize("mode", ["float32", "bfloat16", "float16", "autocast"])
def test_no_false_alarm_over_all_layers(mode: str) -> None:
    watchdog = Watchdog(outputs=[])
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(mode)
    model = Net().to(dtype or torch.float32)
    autocast = torch.bfloat16 if mode == "autocast" else None
    seen, live = train(model, 12, autocast=autocast, sinks=[watchdog])
    assert (watchdog.findings, watchdog.failures, live.skipped) == ([], 0, {})
    assert len(seen) == 12
    assert seen[0].available.all()
    ratio = torch.stack([s.column("gradcheck_ratio") for s in seen]).nan_to_num(0)
    assert ratio.max() <= 5
    notes = {row.name: row.note for row in seen[-1].rows}
    names = {"autocast": "bfloat16"}
    assert notes["head:linear"].endswith(names.get(mode, mode))


def test_float16_autocast_with_a_loss_scale_and_skipped_steps() -> None:
    watchdog = Watchdog(outputs=[])
    seen, live = train(Net(), 12, autocast=torch.float16, sinks=[watchdog])
    assert (watchdog.findings, live.skipped) == ([], {})
    assert len(seen) >= 8
    assert (seen[-1].column("gradcheck_error").nan_to_num(0) < 2e-2).all()


def mutant(change: Callable[[Tensor, Tensor], Tensor]) -> type[torch.autograd.Function]:
    class Mutant(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return change(x, grad_y)

    return Mutant


def flipped(x: Tensor, grad_y: Tensor) -> Tensor:
    return -grad_y * x.cos()


def halved(x: Tensor, grad_y: Tensor) -> Tensor:
    return 0.5 * grad_y * x.cos()


def nan_for_negative(x: Tensor, grad_y: Tensor) -> Tensor:
    return grad_y * x.cos() * (x.sqrt() / x.sqrt())


def findings(
    function: type[torch.autograd.Function],
    dtype: torch.dtype = torch.float32,
    reference: Callable[..., Any] | None = None,
    steps: int = 4,
) -> list[Finding]:
    model = nn.Sequential(nn.Linear(36, 16), nn.Linear(16, 5)).to(dtype)
    watchdog = Watchdog(outputs=[])
    op = function if reference is None else (function, reference)

    def forward(x: Tensor) -> Tensor:
        hidden = 3 * model[0](x.flatten(1))
        return model[1](function.apply(hidden))

    _, live = train(model, steps, ops=[op], sinks=[watchdog], forward=forward)
    assert watchdog.failures == 0
    assert live.skipped == {}
    return watchdog.findings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reference", [None, torch.sin])
@pytest.mark.parametrize(
    ("change", "error", "cosine", "cause"),
    [(flipped, 2.0, -1.0, "a sign"), (halved, 0.5, 1.0, "a constant factor")],
)
def test_a_planted_bug_is_found(
    change: Callable[[Tensor, Tensor], Tensor],
    error: float,
    cosine: float,
    cause: str,
    reference: Callable[..., Any] | None,
    dtype: torch.dtype,
) -> None:
    (finding,) = findings(mutant(change), dtype, reference)
    assert finding.code == "wrong_backward"
    assert finding.layers == ("root:Mutant",)
    assert finding.evidence["relative_error"] == pytest.approx(error, rel=0.1)
    assert finding.evidence["cosine"] == pytest.approx(cosine, abs=0.01)
    assert finding.causes[0].startswith(cause)
    assert "Mutant (" in finding.symptom
    assert "test_live_gradcheck.py:" in finding.symptom
    assert str(dtype).removeprefix("torch.") in finding.symptom


def test_nan_where_the_reference_is_finite_is_found() -> None:
    (finding,) = findings(mutant(nan_for_negative))
    assert finding.step == 0
    assert finding.evidence["relative_error"] == math.inf
    assert "NaN or infinity" in finding.causes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_branch_that_only_real_data_reach_is_found(dtype: torch.dtype) -> None:
    # Eight normal inputs would hardly reach it; the largest of a real batch do.
    (finding,) = findings(WrongBeyondThree, dtype)
    assert finding.step == 0
    assert finding.layers == ("root:WrongBeyondThree",)
    assert "only this run has" in finding.causes[0]


def test_a_random_function_is_skipped_with_the_reason() -> None:
    seen: list[Snapshot] = []
    linear = nn.Linear(3, 3)
    with LiveGradcheck(linear, ops=[Noise], sinks=[seen.append]) as live:
        Noise.apply(linear(torch.randn(20, 3))).sum().backward()
        assert live.read(0) is None
    assert list(live.skipped) == ["root:Noise"]
    assert "random numbers" in live.skipped["root:Noise"]
    assert seen == []


def parameters_after(steps: int, watched: bool, **options: Any) -> list[Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(
        layers.Linear(6, 16), layers.ReLU(True), nn.Dropout(0.5), layers.Linear(16, 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    live = (
        LiveGradcheck(model, optimizer, ops=[Square, Noise], **options)
        if watched
        else None
    )
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(16, 6)
        loss = layers.mse_loss(square(Noise.apply(model(x))), x[:, :1])
        loss.backward()
        optimizer.step()
    if live is not None:
        assert len(live._rows) > 3
        live.detach()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return [*model.parameters(), *grads, torch.rand(3)]


def test_watching_changes_nothing() -> None:
    plain = parameters_after(50, watched=False)
    watched = parameters_after(50, watched=True, every_n_steps=2)
    assert all(map(torch.equal, plain, watched))


def test_only_sampled_steps_are_read() -> None:
    seen, _ = train(Net(), 7, every_n_steps=3)
    assert [snapshot.step for snapshot in seen] == [0, 3, 6]


def test_sites_take_turns() -> None:
    seen, _ = train(Net(), 4, sites=5)
    assert [int(snapshot.available[:, 0].sum()) for snapshot in seen] == [5, 5, 5, 5]
    assert [row.name for row in seen[-1].rows] == SITES
    names = [row.name for row in seen[-1].rows]
    last = [
        n for n, there in zip(names, seen[-1].available[:, 0], strict=True) if there
    ]
    assert last == [*SITES[:3], *SITES[-2:]] or len(last) == 5


def test_a_clock_and_a_closure() -> None:
    model = nn.Sequential(layers.Linear(4, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    seen: list[Snapshot] = []
    x = torch.randn(8, 4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = layers.mse_loss(model(x), x[:, :1])
        loss.backward()
        return loss

    with LiveGradcheck(
        model, optimizer, every_n_steps=1, clock=[7, 7, 8, 8].pop, sinks=[seen.append]
    ):
        optimizer.step(closure)
    assert len(seen) == 1
    assert [row.name for row in seen[0].rows] == ["0:linear", "root:mse_loss"]


def test_evaluation_is_not_seen() -> None:
    model = Net().eval()
    with LiveGradcheck(model) as live:
        model(batch()[0]).sum().backward()
        assert live.read(0) is None
        model.train()
        with torch.no_grad():
            model(batch()[0])
        assert live.read(0) is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant: bool) -> None:
    model = Net()

    def forward(x: Tensor) -> Tensor:
        return checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)

    (snapshot,), live = train(model, 1, forward=forward)
    assert [row.name for row in snapshot.rows] == SITES
    assert snapshot.available.all()
    assert (snapshot.column("gradcheck_error") < 1e-5).all()
    assert live.skipped == {}


def test_a_compiled_graph_is_not_seen_and_not_compiled_again() -> None:
    torch._dynamo.reset()
    counts: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        counts.append(1)
        return graph.forward

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = layers.Linear(36, 5)

        def forward(self, x: Tensor) -> Tensor:
            return square(layers.gelu(self.linear(x.flatten(1))))

    model = Plain()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    seen, live = train(model, 5, every_n_steps=2, forward=compiled)
    assert sum(counts) == 1
    assert {row.name for s in seen for row in s.rows} == {"root:cross_entropy"}
    assert live.skipped == {}


def test_transforms_are_left_alone() -> None:
    linear = layers.Linear(3, 2)
    x = torch.randn(4, 3)
    with LiveGradcheck(linear, ops=[WrongBeyondThree]) as live:
        weight = linear.weight.detach()
        per_row = torch.func.vmap(
            torch.func.grad(lambda w, row: layers.linear(row, w).square().sum()),
            (None, 0),
        )
        assert per_row(weight, x).shape == (4, 2, 3)
        live.read(0)
    assert live.skipped == {}


def test_sharded_parameters_are_compared_whole(tmp_path: Path) -> None:
    here = Path(__file__).parent
    script, root = os.fspath(here / "live_fsdp_rank.py"), os.fspath(here.parents[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, script, str(rank), os.fspath(tmp_path)],
            env={**os.environ, "PYTHONPATH": root},
        )
        for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for rank in (0, 1):
        errors, skipped = json.loads((tmp_path / f"{rank}.json").read_text())
        assert skipped == {}
        names = ["0:linear", "1:gelu", "2:linear", "root:mse_loss"]
        assert [list(row) for row in errors] == [names] * 2
        assert all(error < 1e-5 for row in errors for error in row.values())


def test_a_parameter_that_changed_in_between_is_skipped() -> None:
    model = nn.Sequential(layers.Linear(3, 3))
    with LiveGradcheck(model) as live:
        model(torch.randn(20, 3)).sum().backward()
        with torch.no_grad():
            model[0].weight.mul_(2)
        assert live.read(0) is None
    assert "changed in place" in live.skipped["0:linear"]


def test_the_model_pickles_and_copies_while_it_is_watched() -> None:
    model = Net()
    with LiveGradcheck(model, ops=[Square]):
        model(batch()[0]).sum().backward()
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert not any(m._forward_hooks for m in other.modules())


def test_detaching_leaves_the_classes_as_they_were() -> None:
    forward, setup = Square.forward, WrongBeyondThree.__dict__["setup_context"]
    model = Net()
    first = LiveGradcheck(model, ops=[Square, WrongBeyondThree])
    second = LiveGradcheck(model, ops=[Square])
    assert Square.forward is not forward
    first.detach()
    first.detach()
    assert WrongBeyondThree.__dict__["setup_context"] is setup
    assert Square.forward is not forward
    second.detach()
    assert Square.forward is forward


def test_tensorboard_and_read_run_take_it(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path) as writer:
        seen, _ = train(Net(), 3, sinks=[writer])
    history = read_run(tmp_path, "gradcheck_error")
    assert history.layers == tuple(SITES)
    assert history.values.shape == (3, len(SITES))
    assert history.values[0, 0] == pytest.approx(
        seen[0]["gradcheck_error", "conv:conv2d"]
    )


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"ops": [nn.ReLU]}, TypeError, "an autograd.Function class"),
        ({"ops": [Square, (Square, torch.square)]}, ValueError, "registered once"),
        ({"rows": 0}, ValueError, "rows is a whole number"),
        ({"sites": True}, ValueError, "sites is a whole number"),
        ({"every_n_steps": 0}, ValueError, "every_n_steps is a whole number"),
        ({"sinks": [3]}, TypeError, "a sink is called"),
        ({"optimizer": 3}, TypeError, "torch.optim.Optimizer"),
    ],
)
def test_bad_arguments(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        LiveGradcheck(nn.Linear(1, 1), **options)


def test_it_compares_again_once_an_optimizer_is_attached_again() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    with LiveGradcheck(
        model, optimizer, ops=[Square], every_n_steps=1, sinks=[seen.append]
    ) as live:
        for attached in (True, False, True):
            if not attached:
                live.detach()
                assert not _SPIES
            elif not _SPIES:
                live.attach(optimizer)
            Square.apply(model(torch.randn(4, 2))).sum().backward()
            optimizer.step()
    assert [snapshot.step for snapshot in seen] == [0, 1]
    assert not _SPIES
    with pytest.raises(TypeError, match="watched optimizer"):
        LiveGradcheck(model, model)


def test_what_is_watched_is_a_model_and_an_optimizer_once() -> None:
    with pytest.raises(TypeError, match=r"nn\.Module"):
        LiveGradcheck(torch.nn.Linear)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    with (
        LiveGradcheck(model, optimizer) as live,
        pytest.raises(ValueError, match="attached once"),
    ):
        live.attach(optimizer)
