import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab import Monitor as AnyMonitor, Snapshot
from gradlab.quantities import GradNorm, Quantity, ZeroCount

# One snapshot a step.
Monitor = partial(AnyMonitor, quantities=[GradNorm()])


def mlp(depth: int = 2) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(depth)))


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches(steps: int) -> Iterator[Tensor]:
    maker = torch.Generator().manual_seed(7)
    for _ in range(steps):
        yield torch.randn(4, 3, generator=maker)


def backward(model: nn.Module, batch: Tensor) -> Tensor:
    loss = model(batch).square().mean()
    loss.backward()
    return loss


def train(model: nn.Module, optimizer: Optimizer, steps: int = 3) -> None:
    for batch in batches(steps):
        optimizer.zero_grad()
        backward(model, batch)
        optimizer.step()


def norm(*tensors: Tensor) -> float:
    grads = [tensor.grad.double() for tensor in tensors if tensor.grad is not None]
    return torch.nn.utils.get_total_norm(grads).item()


def test_reads_what_the_optimizer_applies_at_each_step() -> None:
    model = mlp()
    optimizer = sgd(model)
    seen: list[Snapshot] = []
    with Monitor(model, optimizer, sinks=[seen.append]):
        for step, batch in enumerate(batches(3)):
            optimizer.zero_grad()
            for half in batch.chunk(2):
                backward(model, half)
            before = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            assert before > 0.02
            optimizer.step()
            found = seen[step]
            assert (found.step, found.stage) == (step, "applied")
            assert [row.tag for row in found.rows] == [
                *("total", "0", "1"),
                *("0/weight", "0/bias", "1/weight", "1/bias"),
            ]
            assert found["grad_norm", "total"] == pytest.approx(0.01, rel=1e-3)
            for row in found.rows:
                part = (
                    model if row.kind == "total" else model.get_submodule(row.name[0])
                )
                tensors = (
                    [model.get_parameter(row.name)]
                    if row.kind == "parameter"
                    else list(part.parameters())
                )
                assert found["grad_norm", row.name] == pytest.approx(norm(*tensors))
    assert len(seen) == 3


def test_every_n_steps_reads_the_first_of_each_n() -> None:
    model, steps = mlp(), []
    optimizer = sgd(model)
    with Monitor(
        model, optimizer, every_n_steps=4, sinks=[lambda s: steps.append(s.step)]
    ) as monitor:
        train(model, optimizer, 10)
        assert steps == [0, 4, 8]
        assert monitor.step == 10


def test_the_step_can_be_set_after_a_resume() -> None:
    model, steps = mlp(), []
    optimizer = sgd(model)
    with Monitor(
        model, optimizer, every_n_steps=10, sinks=[lambda s: steps.append(s.step)]
    ) as monitor:
        monitor.step = 25
        train(model, optimizer, 20)
        with pytest.raises(ValueError, match="counted from 0, got -1"):
            monitor.step = -1
    assert steps == [25, 30, 40]


def test_each_optimizer_step_is_a_snapshot_of_what_that_optimizer_trains() -> None:
    model = nn.ModuleDict({"critic": mlp(1), "actor": mlp(1)})
    critic, actor = sgd(model["critic"]), sgd(model["actor"])
    seen: list[Snapshot] = []
    with Monitor(model, critic, every_n_steps=2, sinks=[seen.append]) as monitor:
        monitor.attach(actor)
        for _ in range(2):
            train(model["critic"], critic, 1)
            train(model["actor"], actor, 1)
    assert [(s.step, s.rows[0].tag, s.rows[1].name) for s in seen] == [
        (0, "total/0", "critic.0"),
        (1, "total/1", "actor.0"),
        (2, "total/0", "critic.0"),
        (3, "total/1", "actor.0"),
    ]
    for snapshot in seen:
        total, layer = snapshot.column("grad_norm")[:2]
        assert total == layer


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_closure_is_read_once_a_step_after_its_first_run(
    kind: type[Optimizer], by_name: bool
) -> None:
    model = mlp()
    optimizer = kind(model.parameters(), lr=0.1)
    runs: list[float] = []
    seen: list[Snapshot] = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = backward(model, torch.ones(2, 3))
        runs.append(norm(*model.parameters()))
        return loss

    with Monitor(model, optimizer, sinks=[seen.append]):
        for step in range(2):
            first = len(runs)
            take: Any = optimizer.step
            loss = take(closure=closure) if by_name else take(closure)
            assert loss > 0
            assert seen[step]["grad_norm", "total"] == pytest.approx(runs[first])
    assert len(seen) == 2
    assert len(runs) == (2 if kind is torch.optim.SGD else len(runs))
    assert not seen[0].values.requires_grad


def test_a_step_that_calls_its_parents_step_is_one_step() -> None:
    class Counting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    model = mlp()
    # Only a class that has been instantiated runs hooks.
    torch.optim.SGD(model.parameters())
    optimizer = Counting(model.parameters(), lr=0.1)
    seen: list[Snapshot] = []
    with Monitor(model, optimizer, sinks=[seen.append]):
        train(model, optimizer)
    assert [snapshot.step for snapshot in seen] == [0, 1, 2]


def test_a_frozen_parameter_has_no_row_and_one_without_gradient_no_number() -> None:
    model = nn.ModuleDict(
        {"used": mlp(1), "frozen": mlp(1).requires_grad_(False), "idle": mlp(1)}
    )
    model["used"][0].bias.requires_grad_(False)  # pyright: ignore
    backward(model["used"], torch.ones(2, 3))
    found = Monitor(model).observe(0, "raw")
    assert [row.tag for row in found.rows] == [
        *("total", "used.0", "idle.0"),
        *("used.0/weight", "idle.0/weight", "idle.0/bias"),
    ]
    assert found.available.flatten().tolist() == [True, True, False, True, False, False]
    assert math.isnan(found["grad_norm", "idle.0"])
    assert list(found.scalars(True)) == [
        f"grad_norm/{tag}" for tag in ("total", "used.0", "used.0/weight")
    ]


def test_a_layer_is_the_combination_of_the_parameters_that_have_a_gradient() -> None:
    model = nn.Linear(3, 3)
    backward(model, torch.ones(2, 3))
    model.bias.grad = None
    found = Monitor(model).observe(0, "raw")
    assert found["grad_norm", "root"] == pytest.approx(norm(model.weight))


def test_freezing_between_two_steps_is_followed() -> None:
    model = mlp()
    optimizer = sgd(model)
    layers: list[list[str]] = []
    with Monitor(
        model,
        optimizer,
        sinks=[lambda s: layers.append([r.tag for r in s.rows if r.kind == "layer"])],
    ):
        train(model, optimizer, 1)
        model[0].requires_grad_(False)
        train(model, optimizer, 1)
        model[0].requires_grad_(True)
        model.append(nn.Linear(3, 3))
        optimizer.add_param_group({"params": model[2].parameters()})
        train(model, optimizer, 1)
    assert layers == [["0", "1"], ["1"], ["0", "1", "2"]]


def test_a_gradient_of_nan_is_a_number_that_is_nan() -> None:
    model = mlp()
    backward(model, torch.full((2, 3), math.nan))
    found = Monitor(model).observe(0, "raw")
    assert found.available.all()
    assert math.isnan(found.scalars()["grad_norm/total"])


def test_a_vanishing_gradient_is_not_zero() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3e-30, 4e-30]])
    found = Monitor(model).observe(0, "raw")["grad_norm", "root"]
    assert found == pytest.approx(5e-30)
    model.weight.grad = torch.tensor([[3e30, 4e30]])
    found = Monitor(model).observe(0, "raw")["grad_norm", "root"]
    assert found == pytest.approx(5e30)


def test_dtypes_and_layouts_of_one_model_are_read_together() -> None:
    model = nn.Module()
    grads = {
        "half": torch.full((4,), 300.0, dtype=torch.float16),
        "double": torch.full((4,), 1e-3, dtype=torch.float64),
        "complex": torch.tensor([3 + 4j]),
        "empty": torch.empty(0),
        "sparse": torch.eye(4).to_sparse(),
    }
    for name, grad in grads.items():
        parameter = nn.Parameter(torch.zeros(grad.shape, dtype=grad.dtype))
        parameter.grad = grad
        model.register_parameter(f"{name}_", parameter)
    found = Monitor(model).observe(0, "raw")
    assert found.column("grad_norm")[2:].tolist() == pytest.approx([600, 2e-3, 5, 0, 2])


def test_the_scale_is_divided_out() -> None:
    model = mlp()
    backward(model, torch.ones(2, 3))
    monitor = Monitor(model)
    plain = monitor.observe(0, "unscaled").values
    assert torch.equal(monitor.observe(0, "unscaled", 8.0).values * 8, plain)
    scale = torch.tensor(8.0)
    assert torch.equal(monitor.observe(0, "unscaled", scale).values * 8, plain)


@dataclass(frozen=True)
class Zeros(Quantity):
    """A second quantity: how many elements of the gradient are 0, at any scale."""

    name = "zeros"
    moments = (ZeroCount(),)

    def __call__(self, count: int, *moments: float) -> float:
        assert not torch.is_grad_enabled()
        return moments[0]


def test_a_second_quantity_is_a_second_column() -> None:
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[0.0, 4.0]])
    model.bias.grad = torch.tensor([0.0])
    found = Monitor(model, quantities=[GradNorm(), Zeros()]).observe(0, "raw", 2.0)
    assert found.quantities == ("grad_norm", "zeros")
    assert found.values.tolist() == [[2, 2], [2, 2], [2, 1], [0, 1]]
    assert found.scalars()["zeros/root"] == 2


def test_detaching_leaves_no_hook() -> None:
    model = mlp()
    optimizer = sgd(model)
    before = {key: str(value) for key, value in vars(optimizer).items()}
    seen: list[Snapshot] = []
    monitor = Monitor(model, optimizer, sinks=[seen.append])
    monitor.detach()
    monitor.detach()
    assert {key: str(value) for key, value in vars(optimizer).items()} == before
    train(model, optimizer, 1)
    assert not seen
    monitor.attach(optimizer)
    train(model, optimizer, 1)
    assert len(seen) == 1


class Counted(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scale", [1.0, torch.tensor(2.0)])
def test_a_reading_is_one_transfer_and_a_fixed_number_of_operators(
    monkeypatch: pytest.MonkeyPatch, scale: float | Tensor
) -> None:
    transfers: list[str] = []
    for name in ("tolist", "item", "cpu", "numpy", "to", "__float__", "__bool__"):
        original = getattr(Tensor, name)

        def counted(
            self: Tensor,
            *args: Any,
            name: str = name,
            original: Any = original,
            **options: Any,
        ) -> Any:
            # On a host tensor `tolist` is none; "to" is one when it names the host.
            if name != "to" or "cpu" in args:
                transfers.append(name)
            return original(self, *args, **options)

        monkeypatch.setattr(Tensor, name, counted)
    operators: list[int] = []
    for depth in (3, 60):
        model = mlp(depth)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        monitor = Monitor(model)
        transfers.clear()
        with Counted() as counter:
            snapshot = monitor.observe(0, "raw", scale)
        assert transfers.count("to") == 1
        assert not {"item", "cpu", "__float__"} & set(transfers)
        assert sum("_foreach_norm" in name for name in counter.names) == 1
        assert len(snapshot.rows) == 1 + 3 * depth
        operators.append(len(counter.names))
    assert operators[0] == operators[1] < 64


def test_a_step_that_is_not_read_runs_no_operator() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    backward(model, torch.ones(2, 3))

    def operators() -> list[str]:
        with Counted() as counter:
            optimizer.step()
        return counter.names

    plain = operators()
    with Monitor(model, optimizer, every_n_steps=1000):
        assert len(operators()) > len(plain)
        assert operators() == plain


def test_bad_arguments_are_refused_with_a_reason() -> None:
    model = mlp()
    optimizer = sgd(model)
    with pytest.raises(TypeError, match=r"a model is an nn\.Module, got SGD"):
        Monitor(optimizer)
    with pytest.raises(ValueError, match="got Sequential with none that requires"):
        Monitor(mlp().requires_grad_(False))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Monitor(model, every_n_steps=0)
    with pytest.raises(TypeError, match="a class that was not called"):
        Monitor(model, quantities=[GradNorm])
    with pytest.raises(ValueError, match=r"its own name, got \['grad_norm', 'grad_"):
        Monitor(model, quantities=[GradNorm(), GradNorm()])
    with pytest.raises(ValueError, match="at least one quantity"):
        Monitor(model, quantities=[])
    with pytest.raises(ValueError, match="shares no parameter with Sequential"):
        Monitor(model, sgd(mlp()))
    with pytest.raises(ValueError, match="a stage is one of"):
        Monitor(model).observe(0, "later")
    with (
        Monitor(model, optimizer) as monitor,
        pytest.raises(ValueError, match="attached once, got this SGD again"),
    ):
        monitor.attach(optimizer)


def test_a_monitor_that_is_refused_leaves_no_hook() -> None:
    model = mlp()
    other = sgd(mlp())
    with pytest.raises(ValueError, match="shares no parameter"):
        Monitor(model, other, activations=True, trace=True, live_gradcheck=1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not other._optimizer_step_pre_hooks


def test_backwards_are_compared_and_non_finite_numbers_traced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx: Any, grad_y: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return -2 * x * grad_y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return Square.apply(self.fc(x)).add(1e-6).log()

    model, seen = Net(), list[Snapshot]()
    optimizer = sgd(model)
    with AnyMonitor(
        model,
        optimizer,
        pathologies=True,
        trace=True,
        live_gradcheck=2,
        functions=[Square],
        sinks=[seen.append],
    ):
        for step, batch in enumerate(batches(6)):
            optimizer.zero_grad()
            loss = model(batch).sum()
            (loss * torch.inf if step > 2 else loss).backward()
            optimizer.step()
    checks = [s for s in seen if "gradcheck_cosine" in s.quantities]
    assert [s.step for s in checks] == [0, 2]
    assert checks[0]["gradcheck_cosine", "root:Square"] == pytest.approx(-1)
    said = capsys.readouterr().err
    assert "[wrong_backward" in said
    assert "[non_finite" in said
    assert "in the loss" in said
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("modules", [None, ["0"]])
@pytest.mark.parametrize("frozen", [["0"], ["0", "1"]])
def test_training_goes_on_when_what_is_watched_is_frozen(
    modules: list[str] | None, frozen: list[str]
) -> None:
    model, seen = mlp(), list[Snapshot]()
    optimizer = sgd(model)
    with AnyMonitor(model, optimizer, modules=modules, sinks=[seen.append]) as monitor:
        for step, batch in enumerate(batches(6)):
            optimizer.zero_grad()
            for name in frozen:
                model.get_submodule(name).requires_grad_(not 2 <= step < 4)
            loss = model(batch).sum()
            if loss.requires_grad:
                loss.backward()
            optimizer.step()
        assert monitor.failures == 0
    for snapshot in seen:
        if snapshot.quantities != ("grad_norm", "grad_rms", "grad_nonfinite"):
            continue
        names = {row.name for row in snapshot.rows}
        assert ("0" in names) == (not 2 <= snapshot.step < 4)
    assert {snapshot.step for snapshot in seen} == set(range(6))


def test_a_clock_that_fails_does_not_stop_the_run() -> None:
    def clock() -> int:
        raise OSError("no time")

    model, seen = mlp(), list[Snapshot]()
    optimizer = sgd(model)
    watch = Monitor(model, optimizer, clock=clock, sinks=[seen.append])
    with watch as monitor, pytest.warns(RuntimeWarning, match="OSError: no time"):
        train(model, optimizer)
    assert monitor.failures >= 3
    assert [snapshot.step for snapshot in seen] == [0, 1, 2]


def test_detaching_within_a_closure() -> None:
    model = mlp()
    optimizer = sgd(model)
    monitor = AnyMonitor(model, optimizer)

    def closure() -> float:
        optimizer.zero_grad()
        loss = backward(model, torch.ones(2, 3))
        monitor.detach()
        return loss.item()

    optimizer.step(closure)
    assert monitor.failures == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pathologies": ["vanishing"]}, "got 'vanishing'; is it a class that"),
        ({"pathologies": "vanishing"}, "pathologies is a list, got 'vanishing'"),
        ({"pathologies": None}, "pathologies is a list, got None"),
        ({"modules": "0"}, r"modules is a list of globs .* got '0'"),
        ({"modules": [0]}, "modules is a list of globs"),
        ({"quantities": GradNorm()}, r"quantities is a list, got GradNorm\(\)"),
        ({"actions": 3}, "actions is a list, got 3"),
        ({"sinks": print}, "sinks is a list, got <built-in"),
        ({"activations": 3}, "activations is True, False or a list"),
        ({"dry_run": "no"}, "dry_run is True or False, got 'no'"),
        ({"trace": 1}, "trace is True or False, got 1"),
        ({"scaler": 3}, "a scaler is a torch.amp.GradScaler, got 3"),
        ({"clock": 5}, "a clock is called for the step, got clock=5"),
    ],
)
def test_wrong_types_are_refused_with_a_reason(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        AnyMonitor(mlp(), **options)
