"""The taps on outputs, in each situation with a real model, against retained grads."""

import copy
import io
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab import Monitor, Snapshot
from gradlab.quantities import (
    ActivationGain,
    ActivationMean,
    ActivationRMS,
    DeadUnits,
    GradNorm,
    OutputGradRMS,
    Quantity,
    WeightGain,
)

RMS: tuple[Quantity, ...] = (OutputGradRMS(), ActivationRMS())


def mlp(inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 5), nn.ReLU(inplace), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)
    )


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


class Run:
    """A watched model, the snapshots of its activations, and one step at a time."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        self.model = model
        self.optimizer = options.pop("optimizer", None) or sgd(model)
        self.seen: list[Snapshot] = []
        options = {"quantities": RMS, "activations": True} | options
        self.monitor = Monitor(model, self.optimizer, sinks=[self._take], **options)

    def _take(self, snapshot: Snapshot) -> None:
        if snapshot.stage == "raw":
            self.seen.append(snapshot)

    def step(self, *batches: Any, factor: float = 1.0) -> Snapshot:
        self.optimizer.zero_grad()
        for batch in batches:
            (loss(self.model(batch)) * factor).backward()
        self.optimizer.step()
        return self.seen[-1]


def loss(output: Tensor) -> Tensor:
    return output.square().sum()


def truth(model: nn.Sequential, *batches: Tensor) -> dict[str, tuple[float, float]]:
    """Gradient and output rms of each module of a chain, by retained gradients."""
    kept: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for batch in batches:
        outputs: list[Tensor] = []
        x = batch
        for module in model:
            x = module(x.clone())
            x.retain_grad()
            outputs.append(x)
        values = [output.detach().clone() for output in outputs]
        loss(x).backward()
        for i, output in enumerate(outputs):
            kept.setdefault(str(i), []).append((output.grad, values[i]))
    model.zero_grad()
    return {name: (rms(pairs, 0), rms(pairs, 1)) for name, pairs in kept.items()}


def rms(pairs: list[tuple[Tensor, Tensor]], k: int) -> float:
    return torch.cat([p[k].flatten() for p in pairs]).square().mean().sqrt().item()


def check(found: Snapshot, expected: dict[str, tuple[float, float]]) -> None:
    assert [row.name for row in found.rows] == list(expected)
    for name, (grad, value) in expected.items():
        assert found["output_grad_rms", name] == pytest.approx(grad, rel=1e-5), name
        assert found["activation_rms", name] == pytest.approx(value, rel=1e-5), name


def test_rows_are_modules_in_the_order_of_the_forward() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 3)
            self.act = nn.GELU()
            self.first = nn.Linear(3, 3)
            self.wrap = nn.Sequential(nn.Dropout())

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(self.wrap(self.first(x))))

    found = Run(Backwards()).step(torch.ones(2, 3))
    assert [row.tag for row in found.rows] == ["first", "act", "last"]
    assert {row.kind for row in found.rows} == {"layer"}
    assert (found.step, found.stage) == (0, "raw")


@pytest.mark.parametrize("inplace", [False, True])
def test_numbers_are_those_of_retained_gradients(inplace: bool) -> None:
    batch = torch.randn(6, 3)
    expected = truth(mlp(), batch)
    check(Run(mlp(inplace)).step(batch), expected)


def test_microbatches_of_one_step_combine() -> None:
    one, other = torch.randn(6, 3), torch.randn(2, 3)
    expected = truth(mlp(), one, other)
    run = Run(mlp())
    check(run.step(one, other), expected)
    assert len(run.seen) == 1


def test_a_module_called_twice_combines() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.kept: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = self.fc(x)
                x.retain_grad()
                self.kept.append(x)
            return x

    model = Twice()
    found = Run(model).step(torch.randn(4, 3))
    grads = torch.cat([x.grad for x in model.kept])
    assert found["output_grad_rms", "fc"] == pytest.approx(
        grads.square().mean().sqrt().item()
    )


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        chain = mlp()
        self.halves = nn.ModuleList([chain[:2], chain[2:4]])
        self.head = chain[4]
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for half in self.halves:
            if self.reentrant is None:
                x = half(x)
            else:
                x = checkpoint(half, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_counts_each_module_once(reentrant: bool) -> None:
    batch = torch.randn(6, 3, requires_grad=True)
    quantities = (*RMS, ActivationMean(), DeadUnits())
    plain = Run(Checkpointed(None), quantities=quantities)
    again = Run(Checkpointed(reentrant), quantities=quantities)
    for _ in range(3):
        one, other = plain.step(batch, batch * 2), again.step(batch, batch * 2)
        assert one.rows == other.rows
        torch.testing.assert_close(one.values, other.values, equal_nan=True)


def test_evaluation_in_between_does_not_count() -> None:
    batch = torch.randn(6, 3)
    expected = truth(mlp(), batch)
    run = Run(mlp())
    run.optimizer.zero_grad()
    loss(run.model(batch)).backward()
    run.model.eval()
    loss(run.model(batch * 100))
    with torch.no_grad():
        run.model(batch * 100)
    run.model.train()
    with torch.no_grad():
        run.model(batch * 100)
    run.optimizer.step()
    check(run.seen[0], expected)


def test_frozen_modules_have_a_row_where_a_gradient_passes() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    found = Run(model, optimizer=sgd(model[4])).step(torch.ones(2, 3))
    assert [row.name for row in found.rows] == ["4"]
    model = mlp()
    model[2].requires_grad_(False)
    found = Run(model).step(torch.ones(2, 3))
    assert [row.name for row in found.rows] == ["0", "1", "2", "3", "4"]


@dataclass
class Output:
    index: Tensor
    hidden: Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: {"index": torch.arange(3), "hidden": x},
        lambda x: (None, [x]),
        lambda x: Output(torch.arange(3), x),
    ],
)
def test_outputs_of_any_form(wrap: Callable[[Tensor], Any]) -> None:
    class Wrapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(3))

        def forward(self, x: Tensor) -> Any:
            self.hidden = x @ self.weight
            self.hidden.retain_grad()
            return wrap(self.hidden)

    model = Wrapping()
    run = Run(model)
    run.model(torch.ones(2, 3))
    model.hidden.square().sum().backward()
    run.optimizer.step()
    assert run.seen[0]["output_grad_rms", "root"] == pytest.approx(2.0)


def test_a_view_whose_base_changed_in_place_is_no_crash() -> None:
    # register_hook ends the process there (pytorch#196459), hence another one.
    code = """
import torch
from torch import nn
from gradlab import Monitor
from gradlab.quantities import OutputGradRMS
class View(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))
    def forward(self, x):
        base = self.w * x
        view = base.view(2, 2)
        base.mul_(2)
        return view
model = View()
optimizer = torch.optim.SGD(model.parameters())
sinks = [lambda s: print(s.stage, s.values.tolist())]
q = [OutputGradRMS()]
with Monitor(model, optimizer, quantities=q, activations=True, sinks=sinks):
    model(torch.ones(4)).sum().backward()
    optimizer.step()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "raw [[1.0]]"


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_the_loss_scale_is_divided_out(fused: bool, unscale: bool) -> None:
    batch = torch.randn(6, 3)
    expected = truth(mlp(), batch)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run = Run(model, optimizer=optimizer, scaler=scaler)
    scaler.scale(loss(model(batch))).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    check(run.seen[0], expected)


def test_a_step_that_grad_scaler_skips_is_not_mixed_into_the_next() -> None:
    batch = torch.randn(6, 3)
    expected = truth(mlp(), batch)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run = Run(mlp(), scaler=scaler)
    for x in (torch.full((6, 3), math.inf), batch):
        run.optimizer.zero_grad()
        scaler.scale(loss(run.model(x))).backward()
        scaler.step(run.optimizer)
        scaler.update()
    assert len(run.seen) == 1
    check(run.seen[0], expected)


def test_a_vanished_gradient_is_measured_where_float32_squares_vanish() -> None:
    found = Run(mlp()).step(torch.randn(6, 3), factor=1e-25)
    assert 0 < found["output_grad_rms", "0"] < 1e-24


def test_only_sampled_steps_are_measured() -> None:
    batch = torch.randn(6, 3)
    run = Run(mlp(), every_n_steps=3)
    booked: list[bool | None] = []
    for _ in range(7):
        run.optimizer.zero_grad()
        loss(run.model(batch)).backward()
        booked.append(run.monitor._reader.activations._taps.sampling)
        run.optimizer.step()
    assert booked == [True, False, False, True, False, False, True]
    assert [s.step for s in run.seen] == [0, 3, 6]


def test_two_optimizers_that_take_turns_are_both_read() -> None:
    model = nn.ModuleDict({"critic": mlp(), "actor": mlp()})
    critic, actor = sgd(model["critic"]), sgd(model["actor"])
    run = Run(model, optimizer=critic, every_n_steps=2)
    run.monitor.attach(actor)
    for _ in range(2):
        for name, optimizer in (("critic", critic), ("actor", actor)):
            loss(model[name](torch.ones(2, 3))).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [(s.step, s.rows[0].name) for s in run.seen] == [
        (0, "critic.0"),
        (1, "actor.0"),
        (2, "critic.0"),
        (3, "actor.0"),
    ]


def test_a_closure_is_read_after_its_first_run() -> None:
    batch = torch.randn(6, 3)
    expected = truth(mlp(), batch)
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    run = Run(model, optimizer=optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model(batch))
        value.backward()
        return value

    optimizer.step(closure)
    check(run.seen[0], expected)
    expected = truth(model, batch)
    optimizer.step(closure)
    check(run.seen[1], expected)
    assert [s.step for s in run.seen] == [0, 1]


def test_without_an_optimizer_it_is_read_by_hand() -> None:
    batch = torch.randn(6, 3)
    expected = truth(mlp(), batch)
    model = mlp()
    monitor = Monitor(model, quantities=RMS, activations=True)
    assert monitor.observe_activations(0) is None
    loss(model(batch) * 2).backward()
    found = monitor.observe_activations(0, 4.0)
    assert found is not None
    check(found, expected)


def test_exceptions_leave_nothing_behind() -> None:
    batch = torch.randn(6, 3)
    expected = truth(mlp(), batch)
    run = Run(mlp())
    with pytest.raises(RuntimeError, match="shapes"):
        run.model(torch.ones(2, 7))
    check(run.step(batch), expected)
    with pytest.raises(RuntimeError, match="shapes"), run.monitor:
        run.model(torch.ones(2, 7))
    assert not any(m._forward_hooks for m in run.model.modules())


def test_a_copy_does_not_report_and_a_pickle_does_not_need_gradlab() -> None:
    batch = torch.randn(6, 3)
    run = Run(mlp())
    file = io.BytesIO()
    torch.save(run.model, file)
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert b"gradlab" not in file.getvalue()
    twins = [copy.deepcopy(run.model), loaded, pickle.loads(pickle.dumps(run.model))]
    for twin in twins:
        optimizer = sgd(twin)
        loss(twin(batch)).backward()
        optimizer.step()
    assert run.monitor.observe_activations(0) is None
    assert not run.seen
    expected = truth(_with(run.model.state_dict()), batch)
    check(run.step(batch), expected)


def _with(state: dict[str, Tensor]) -> nn.Sequential:
    model = mlp()
    model.load_state_dict(state)
    return model


def test_detaching_leaves_no_hook_and_late_backwards_are_not_booked() -> None:
    run = Run(mlp())
    output = run.model(torch.ones(2, 3))
    run.monitor.detach()
    run.monitor.detach()
    assert not any(m._forward_hooks for m in run.model.modules())
    loss(output).backward()
    run.optimizer.step()
    assert run.monitor.observe_activations(0) is None


def test_samples_are_kept_until_the_step_is_read_and_no_activation() -> None:
    model = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 2))
    run = Run(model)
    loss(model(torch.randn(1000, 3))).backward()
    taps = run.monitor._reader.activations._taps
    kept = [t for call in taps.came for t in (call.value, call.grad)]
    assert len(kept) == 6
    assert max(t.untyped_storage().nbytes() for t in kept) <= 4 * 8192
    run.optimizer.step()
    assert not taps.came


def test_what_is_kept_does_not_grow_with_the_number_of_calls() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    expected = truth(copy.deepcopy(model), *[torch.full((1, 2), k / 9) for k in (1, 5)])
    run = Run(model, quantities=[*RMS, WeightGain(), ActivationGain()])
    taps = run.monitor._reader.activations._taps
    most = 0
    for k in range(600):
        loss(model(torch.full((1, 2), (5 if k % 2 else 1) / 9))).backward()
        most = max(most, len(taps.came))
    assert most <= 512
    run.optimizer.step()
    check(run.seen[0], expected)
    assert run.seen[0]["activation_gain", "1"] < 1


def test_large_outputs_are_estimated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 300), nn.Tanh(), nn.Linear(300, 40))
    batch = torch.randn(2000, 20)
    expected = truth(copy.deepcopy(model), batch)
    found = Run(model, quantities=[*RMS, ActivationMean()]).step(batch)
    for name, (grad, value) in expected.items():
        assert found["output_grad_rms", name] == pytest.approx(grad, rel=0.05), name
        assert found["activation_rms", name] == pytest.approx(value, rel=0.05), name
    assert found["activation_mean", "1"] == pytest.approx(
        model[:2](batch).mean().item(), abs=0.05
    )


def test_a_parameter_returned_by_a_module_gets_no_lasting_hook() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight

    run = Run(Table())
    for _ in range(3):
        assert run.step(torch.ones(1))["activation_rms", "root"] > 0
        assert not run.model.weight._backward_hooks


def test_patterns_choose_modules() -> None:
    chain = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 3))
    found = Run(chain, activations=["0", "1"]).step(torch.ones(2, 3))
    assert [row.name for row in found.rows] == ["0", "1"]
    with pytest.raises(ValueError, match=r"fits none of 0, 0\.0, 1"):
        Monitor(chain, activations=["encoder.*"])


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="say activations=True"):
        Monitor(mlp(), quantities=RMS, activations=False)
    with pytest.raises(TypeError, match=r"list of patterns.*got '0\.\*'"):
        Monitor(mlp(), activations="0.*")
    with pytest.raises(ValueError, match="made without activations=True"):
        Monitor(mlp()).observe_activations(0)


def test_the_usual_quantities_and_one_snapshot_of_gradients() -> None:
    stages: list[tuple[str, tuple[str, ...]]] = []
    model = mlp()
    optimizer = sgd(model)
    with Monitor(
        model,
        optimizer,
        quantities=[GradNorm()],
        activations=True,
        sinks=[lambda s: stages.append((s.stage, s.quantities))],
    ):
        loss(model(torch.ones(2, 3))).backward()
        optimizer.step()
    assert stages == [
        ("applied", ("grad_norm",)),
        (
            "raw",
            ("output_grad_rms", "activation_rms", "saturation"),
        ),
    ]


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_before_the_monitor_is_said_once(in_place: bool) -> None:
    model = mlp()
    compiled: nn.Module = model
    if in_place:
        model.compile(backend="eager")
    else:
        compiled = torch.compile(model, backend="eager")  # pyright: ignore[reportAssignmentType]
    with pytest.warns(UserWarning, match="compiled before the monitor") as said:
        Monitor(compiled, activations=True).detach()
    assert len(said) == 1


def test_hooks_before_compile_work() -> None:
    batch = torch.randn(6, 3)
    run = Run(mlp(), every_n_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(run.model, backend="eager")
        for step in range(3):
            expected = truth(_with(run.model.state_dict()), batch)
            run.optimizer.zero_grad()
            loss(compiled(batch)).backward()
            run.optimizer.step()
            if step != 1:
                check(run.seen[-1], expected)
    assert [s.step for s in run.seen] == [0, 2]


def test_tracing_measures_nothing() -> None:
    run = Run(mlp())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(run.model, torch.ones(2, 3))
    assert run.monitor.observe_activations(0) is None


def test_what_cannot_be_measured_is_said_once_and_training_goes_on() -> None:
    class Broken(OutputGradRMS):
        def moments_of(self, module: nn.Module) -> Any:
            return (Raises(),)

    class Raises(type(OutputGradRMS.moments[0])):
        def __call__(self, values: Any, grads: Any, dtype: Any = None) -> Tensor:
            raise RuntimeError("no kernel")

    run = Run(nn.Linear(3, 2), quantities=[Broken(), GradNorm()])
    run.optimizer.zero_grad()
    loss(run.model(torch.ones(2, 3))).backward()
    with pytest.warns(RuntimeWarning, match="root must be a tensor.*no kernel"):
        run.optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(run.model(torch.ones(2, 3))).backward()
        run.optimizer.step()
    assert not run.seen
