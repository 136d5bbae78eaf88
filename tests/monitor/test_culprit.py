"""Each way to make a NaN, in a model that trains, and what is said of it."""

import copy
import io
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab import Monitor
from gradlab.layers import Linear
from gradlab.monitor import Culprit, NonFiniteTrace, Watchdog, find_non_finite
from gradlab.pathologies import Finding
from gradlab.quantities import GradNonFinite, GradNorm, ParamNorm


class Act(nn.Module):
    """A function of one tensor, as a user writes it."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def identity() -> nn.Linear:
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3))
        layer.bias.zero_()
    return layer


def chain(*functions: Callable[[Tensor], Any]) -> nn.Sequential:
    """`0` passes its input on; then the functions, and a layer after them."""
    return nn.Sequential(identity(), *map(Act, functions), identity())


def batch() -> Tensor:
    """Four entries; entry 2 has a zero, at [2, 1]."""
    x = torch.linspace(0.5, 2.0, 12).reshape(4, 3)
    x[2, 1] = 0.0
    return x


def found(
    model: nn.Module, *args: Any, loss: Callable[[Any], Tensor] = torch.sum, **kw: Any
) -> Culprit:
    """What a trace finds after a real forward and backward."""
    with NonFiniteTrace(model) as trace:
        loss(model(*args, **kw)).backward()
        return trace.find()


def test_log_of_zero() -> None:
    culprit = found(chain(lambda x: x.clamp_min(0).log()), batch())
    assert (culprit.kind, culprit.op, culprit.module) == ("forward", "log", "1")
    assert (culprit.result, culprit.count, culprit.of) == ("-inf", 1, 12)
    assert [o.value for o in culprit.operands] == [0.0]
    assert (culprit.entries, culprit.batch) == ((2,), 4)
    assert culprit.source.startswith("tests/monitor/test_culprit.py:")
    assert "x.clamp_min(0).log()" in culprit.code
    assert str(culprit).startswith(
        "log(0) gives -inf at 1 of 12 entries, in the forward of 1 (tests/monitor/"
    )
    assert str(culprit).endswith(
        "; batch entry 2 of 4; then addmm makes nan and -inf of it"
    )
    assert "log_softmax" in culprit.advice


def test_derivative_of_the_root_at_zero() -> None:
    culprit = found(chain(torch.sqrt), batch())
    assert (culprit.kind, culprit.op, culprit.function) == ("backward", "div", "sqrt")
    assert (culprit.module, culprit.entries, culprit.result) == ("1", (2,), "inf")
    assert culprit.operands[1].value == 0.0
    assert "self.function(x)" in culprit.code


def test_softmax_of_a_row_that_is_masked_whole() -> None:
    keep = torch.ones(4, 3, dtype=torch.bool)
    keep[:, 0] = False
    keep[3] = False
    culprit = found(
        chain(lambda x: x.masked_fill(~keep, -math.inf).softmax(1)), batch()
    )
    assert (culprit.kind, culprit.op) == ("forward", "_softmax")
    assert (culprit.result, culprit.entries) == ("nan", (3,))
    assert (culprit.operands[0].low, culprit.operands[0].high) == (-math.inf, -math.inf)
    assert culprit.note.startswith("its -inf comes from masked_fill (tests/")


def test_an_additive_mask_is_no_culprit() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = identity()

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return (self.layer(x) + mask).softmax(1).sqrt()

    mask = torch.tensor([0.0, -math.inf, 0.0])
    # The root of the probability 0 that the mask makes.
    culprit = found(Attention(), batch(), mask)
    assert (culprit.kind, culprit.function) == ("backward", "sqrt")
    assert find_non_finite(Attention(), batch(), mask, loss=lambda y: y.square().sum())


def test_division_by_zero() -> None:
    culprit = found(chain(lambda x: 1 / x), batch())
    assert (culprit.kind, culprit.op) == ("forward", "reciprocal")
    assert culprit.call == "reciprocal(0)"
    culprit = found(chain(lambda x: x / x), batch())
    assert (culprit.call, culprit.result) == ("div(0, 0)", "nan")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_overflow(dtype: torch.dtype) -> None:
    model = chain(torch.exp).to(dtype)
    culprit = found(
        model, (batch() * (6.0 if dtype is torch.float16 else 50)).to(dtype)
    )
    assert (culprit.op, culprit.result) == ("exp", "inf")
    assert culprit.overflows == str(dtype).removeprefix("torch.")
    assert f"overflows {culprit.overflows} at" in str(culprit)
    assert "wider dtype" in culprit.advice


def test_overflow_in_place_under_autocast() -> None:
    model = nn.Sequential(identity(), Act(lambda x: x.mul_(60000.0)), identity())
    with NonFiniteTrace(model) as trace:
        with torch.autocast("cpu", torch.float16):
            output = model(batch())
        output.float().sum().backward()
        culprit = trace.find()
    assert (culprit.op, culprit.overflows) == ("mul_", "float16")
    assert culprit.operands[0].value == pytest.approx(1.18, abs=0.02)


def test_overflow_in_the_backward() -> None:
    model = chain(torch.tanh).half()
    culprit = found(model, batch().half(), loss=lambda y: (y.sum() * 40000).float())
    assert (culprit.kind, culprit.overflows) == ("backward", "float16")
    assert culprit.module == "2"
    assert "loss scale" in culprit.advice


def test_a_batch_that_is_not_finite() -> None:
    x = batch()
    x[1, 0] = x[3, 2] = math.nan
    culprit = found(chain(torch.tanh), x)
    assert (culprit.kind, culprit.names, culprit.entries) == (
        "batch",
        ("input 0",),
        (1, 3),
    )
    assert str(culprit) == (
        "the batch holds nan at 2 of 12 entries: input 0; batch entries 1, 3 of 4"
    )


def test_weights_that_are_not_finite() -> None:
    model = chain(torch.tanh)
    with torch.no_grad():
        model[2].weight.fill_(math.nan)
    culprit = found(model, batch())
    assert (culprit.kind, culprit.names) == ("weights", ("2.weight",))
    assert str(culprit).startswith("weights were not finite before this step: 2.weight")


def test_a_buffer_that_is_not_finite() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), identity()).eval()
    assert model[0].running_var is not None
    model[0].running_var.fill_(math.nan)
    culprit = found(model, batch())
    assert (culprit.kind, culprit.names) == ("buffer", ("0.running_var",))


def normed(*functions: Callable[[Tensor], Any]) -> nn.Sequential:
    return nn.Sequential(
        identity(), *map(Act, functions), nn.BatchNorm1d(3), nn.Tanh(), identity()
    )


def test_a_batch_norm_that_trains_is_not_to_blame_for_what_came_in() -> None:
    x = batch()
    x[1, 0] = math.nan
    model = normed()
    culprit = found(model, x)
    assert (culprit.kind, culprit.names, culprit.entries) == (
        "batch",
        ("input 0",),
        (1,),
    )
    # Its statistics are lost now, and it does not read them.
    assert model[1].running_mean.isnan().any()
    assert found(model, x).kind == "batch"
    culprit = found(nn.Sequential(*model, Act(torch.sqrt)), batch() - 1)
    assert (culprit.kind, culprit.op, culprit.module) == ("forward", "sqrt", "4")
    culprit = found(nn.Sequential(*model, Act(torch.sqrt)), batch() * 0)
    assert (culprit.kind, culprit.function) == ("backward", "sqrt")
    culprit = found(model.eval(), batch())
    assert (culprit.kind, culprit.names) == ("buffer", ("1.running_mean",))


def test_the_operation_before_a_batch_norm_is_to_blame() -> None:
    culprit = found(normed(lambda x: (x - 95 * (x == 0)).sqrt()), batch())
    assert (culprit.kind, culprit.op, culprit.call) == ("forward", "sqrt", "sqrt(-95)")
    assert (culprit.module, culprit.entries) == ("1", (2,))
    culprit = found(normed(lambda x: (x * 60).exp()), batch())
    assert (culprit.op, culprit.overflows) == ("exp", "float32")


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d, nn.SyncBatchNorm, nn.BatchNorm1d])
@pytest.mark.parametrize("momentum", [None, 0.1])
def test_norms_with_statistics(norm: type[nn.Module], momentum: float | None) -> None:
    layer = norm(3, momentum=momentum, affine=True, track_running_stats=True)
    model = nn.Sequential(layer, nn.Tanh())
    x = torch.randn(4, 3, 5)
    x[1, 0, 2] = math.nan
    assert found(model, x).kind == "batch"
    assert found(model, x).kind == "batch"


class Centered(nn.Module):
    """Subtracts a running mean, which its forward replaces or changes in place."""

    mean: Tensor

    def __init__(self, replaces: bool) -> None:
        super().__init__()
        self.replaces = replaces
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        now = x.detach().mean(0)
        if self.replaces:
            self.mean = 0.9 * self.mean + 0.1 * now
        else:
            self.mean.mul_(0.9).add_(0.1 * now)
        return x - self.mean


@pytest.mark.parametrize("replaces", [False, True])
def test_a_buffer_that_the_forward_writes_to(replaces: bool) -> None:
    x = batch()
    x[1, 0] = math.nan
    culprit = found(nn.Sequential(identity(), Centered(replaces)), x)
    assert (culprit.kind, culprit.entries) == ("batch", (1,))
    for function, op in ((lambda x: (x - 1).sqrt(), "sqrt"), (torch.log, "log")):
        model = nn.Sequential(identity(), Act(function), Centered(replaces))
        culprit = found(model, batch())
        assert (culprit.kind, culprit.op) == ("forward", op)
    # Lost by now, whatever comes in.
    culprit = found(model, batch() + 1)
    assert (culprit.kind, culprit.names) == ("buffer", ("2.mean",))
    assert "this forward, which writes to it" in str(culprit)


def test_a_loss_outside_of_the_model() -> None:
    def loss(y: Tensor) -> Tensor:
        return y.sqrt().sum()

    culprit = found(chain(torch.relu), batch(), loss=loss)
    assert (culprit.kind, culprit.result, culprit.entries) == ("loss", "inf", (2,))
    assert "find_non_finite" in culprit.advice
    culprit = find_non_finite(chain(torch.relu), batch(), loss=loss)
    assert culprit is not None
    assert (culprit.kind, culprit.function) == ("backward", "sqrt")
    assert "y.sqrt().sum()" in culprit.code


def test_where_does_not_help() -> None:
    culprit = found(chain(lambda x: torch.where(x > 0, x.sqrt(), 0.0)), batch())
    assert (culprit.kind, culprit.function) == ("backward", "sqrt")
    assert (culprit.call, culprit.result) == ("div(0, 0)", "nan")


def test_infinity_that_where_hides() -> None:
    culprit = found(chain(lambda x: torch.where(x > 0, 1 / x, 0.0)), batch())
    assert (culprit.kind, culprit.call) == ("forward", "reciprocal(0)")
    assert culprit.then.endswith("makes nan of it in the backward of reciprocal")


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x / x


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        array = grad.numpy().copy()
        array[1] = math.nan
        return torch.from_numpy(array)


def test_a_function_whose_backward_is_wrong() -> None:
    culprit = found(chain(WrongBackward.apply), batch())
    assert (culprit.kind, culprit.function) == ("backward", "WrongBackward")
    assert (culprit.call, culprit.module) == ("div(0, 0)", "1")
    assert culprit.code == "return grad * x / x"


def test_a_function_that_uses_no_operator() -> None:
    culprit = found(chain(Opaque.apply), batch())
    assert (culprit.kind, culprit.function) == ("backward", "Opaque")
    assert (culprit.entries, culprit.result) == ((1,), "nan")
    assert str(culprit).startswith(
        "Opaque gives nan at 3 of 12 entries, in the backward"
    )


class ByNumPy(torch.autograd.Function):
    """Twice the input, as a kernel of its own: torch sees nothing of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.from_numpy(grad.numpy() * 2)


@pytest.mark.parametrize(
    ("functions", "kind", "name"),
    [
        ((torch.log, ByNumPy.apply), "forward", "log"),
        ((lambda x: ByNumPy.apply(x.log()) + 1,), "forward", "log"),
        ((ByNumPy.apply, torch.sqrt), "backward", "sqrt"),
        ((lambda x: ByNumPy.apply(x + 1).sub(2).sqrt(),), "forward", "sqrt"),
    ],
)
def test_what_uses_no_operator_hands_on(
    functions: tuple[Callable[[Tensor], Tensor], ...], kind: str, name: str
) -> None:
    x = batch()
    x[2, 1] = 0.0 if kind == "backward" or name == "log" else -3.0
    culprit = found(chain(*functions), x)
    assert (culprit.kind, culprit.function or culprit.op) == (kind, name)


def test_a_forward_that_uses_no_operator() -> None:
    def by_numpy(x: Tensor) -> Tensor:
        return x + torch.from_numpy(x.detach().numpy() * math.nan)

    culprit = found(chain(by_numpy), batch())
    assert (culprit.kind, culprit.module) == ("unseen", "1")
    assert "outside of torch's operators" in str(culprit)


def test_a_layer_of_gradlab_names_its_function() -> None:
    model = nn.Sequential(identity(), Linear(3, 3)).half()
    with torch.no_grad():
        model[1].weight.fill_(2.0)
    culprit = found(model, batch().half(), loss=lambda y: (y.sum() * 30000).float())
    assert (culprit.kind, culprit.function) == ("backward", "LinearFunction")
    assert (culprit.module, culprit.overflows) == ("1", "float16")


def test_dropout_is_repeated() -> None:
    torch.manual_seed(3)
    # One of 64 entries is kept at a time: another draw would not be hit.
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.98), Act(torch.exp))
    drawn: list[Tensor] = []
    hook = model[1].register_forward_hook(lambda m, a, y: drawn.append(y.detach()))
    with NonFiniteTrace(model) as trace:
        model(torch.full((4, 64), 40.0)).sum().backward()
        culprit = trace.find()
    hook.remove()
    assert torch.equal(*drawn)
    assert culprit.count == int((drawn[0] > 88.73).sum()) > 0


def state(model: nn.Module) -> list[Tensor]:
    return [t.clone() for t in model.state_dict().values()]


def test_a_replay_changes_nothing() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.outputs, self.last = 0, list[int](), torch.zeros(3)
            self.table = nn.Embedding(5, 3, max_norm=0.1)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.outputs.append(self.calls)
            self.last += 1
            x = x.mul_(2)
            return x + self.table(torch.arange(4)) * torch.rand(())

    counts = Counts()
    model = nn.Sequential(
        identity(), nn.BatchNorm1d(3), nn.Dropout(), counts, Act(torch.sqrt)
    )
    seen: list[int] = []
    weight = model.get_parameter("0.weight")
    weight.register_hook(lambda g: seen.append(1))
    weight.register_post_accumulate_grad_hook(lambda p: seen.append(2))
    x = batch()
    with NonFiniteTrace(model) as trace:
        model(x).sum().backward()
        with torch.no_grad():
            model.get_parameter("3.table.weight").mul_(10)
        before, grads = state(model), [p.grad for p in model.parameters()]
        values = [g.clone() for g in grads]
        rng, batch_before = torch.get_rng_state(), x.clone()
        versions = [p._version for p in model.parameters()]
        culprit = trace.find()
    assert culprit.kind == "forward", culprit
    assert all(map(torch.equal, before, state(model)))
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    for grad, value in zip(grads, values, strict=True):
        assert torch.equal(grad.nan_to_num(), value.nan_to_num())
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(x, batch_before)
    assert versions == [p._version for p in model.parameters()]
    assert seen == [1, 2]
    assert (counts.calls, counts.outputs, counts.last[0]) == (1, [1], 1)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def train(traced: bool, steps: int = 20) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 8),
        nn.BatchNorm1d(8),
        nn.Dropout(0.3),
        nn.ReLU(True),
        nn.Linear(8, 1),
    )
    optimizer = torch.optim.Adam(model.parameters())
    trace = NonFiniteTrace(model) if traced else None
    for step in range(steps):
        optimizer.zero_grad()
        for _ in range(2):
            model(torch.randn(8, 3)).square().mean().backward()
        if trace is not None and step % 5 == 0:
            assert trace.find().kind == "unknown"
        optimizer.step()
    if trace is not None:
        trace.remove()
    return state(model)


def test_tracing_changes_nothing() -> None:
    assert all(map(torch.equal, train(False), train(True)))


def test_activations_in_place() -> None:
    model = nn.Sequential(nn.ReLU(True), identity(), nn.ELU(1.0, True), Act(torch.sqrt))
    culprit = found(model, batch())
    assert (culprit.kind, culprit.function, culprit.module) == ("backward", "sqrt", "3")
    assert "changed in place" in culprit.note


def test_a_module_that_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.root = identity(), Act(torch.sqrt)

        def forward(self, x: Tensor) -> Tensor:
            return self.root(self.layer(self.root(x + 1)) * 0)

    culprit = found(Twice(), batch())
    assert (culprit.kind, culprit.module) == ("backward", "root")
    assert culprit.count == 12
    assert "; all 4 batch entries; then mul(inf, 0) makes nan" in str(culprit)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    ("function", "kind", "op"),
    [(torch.sqrt, "backward", "div"), (torch.log, "forward", "log")],
)
def test_activation_checkpointing(
    reentrant: bool, function: Callable[[Tensor], Tensor], kind: str, op: str
) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(identity(), nn.BatchNorm1d(3, affine=False))
            self.root = Act(function)

        def inner(self, x: Tensor) -> Tensor:
            return self.root(self.body(x) * 0)

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    model = nn.Sequential(identity(), Block(), identity())
    with NonFiniteTrace(model) as trace:
        model(batch()).sum().backward()
        before, grads = state(model), [p.grad.clone() for p in model.parameters()]
        culprit = trace.find()
    assert (culprit.kind, culprit.op, culprit.module) == (kind, op, "1.root")
    assert all(map(torch.equal, before, state(model)))
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert torch.equal(parameter.grad.nan_to_num(), grad.nan_to_num())


@dataclass
class Output:
    loss: Tensor
    logits: Tensor


@pytest.mark.parametrize("kind", [dict, Output])
def test_outputs_of_several_tensors(kind: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = identity()

        def forward(self, x: Tensor) -> Any:
            logits = self.layer(x).sqrt()
            return kind(loss=logits.square().sum(), logits=logits)

    def loss(output: Any) -> Tensor:
        return output["loss"] if kind is dict else output.loss

    culprit = found(Model(), batch(), loss=loss)
    # 0 comes back to the root of 0: once, not twice.
    assert (culprit.kind, culprit.call) == ("backward", "div(0, 0)")
    assert find_non_finite(Model(), batch()).function == "sqrt"


def test_the_microbatch_is_named() -> None:
    model = chain(torch.sqrt)
    with NonFiniteTrace(model) as trace:
        for i in range(4):
            model(batch() + (i != 2)).sum().backward()
        culprit = trace.find()
        assert (culprit.microbatch, culprit.microbatches) == (2, 4)
        assert "microbatch 2 of 4" in str(culprit)
    with NonFiniteTrace(model, calls=2) as trace:
        model.zero_grad()
        for i in range(4):
            model(batch() + (i != 2)).sum().backward()
        assert trace.find().microbatch == 2
        model.zero_grad()
        for i in range(4):
            model(batch() + (i != 0)).sum().backward()
        culprit = trace.find()
    assert culprit.kind == "unknown"
    assert "2 earlier ones were not kept" in culprit.note


def test_what_is_kept_is_let_go() -> None:
    model = chain(torch.tanh)
    optimizer = torch.optim.SGD(model.parameters())
    with NonFiniteTrace(model) as trace:
        for _ in range(3):
            model(batch()).sum().backward()
            optimizer.step()
            assert len(trace._calls.kept) == 1
        for _ in range(3):
            # As where GradScaler skips the step.
            optimizer.zero_grad()
            model(batch()).sum().backward()
            assert len(trace._calls.kept) == 1
        for _ in range(3):
            with torch.no_grad():
                model(batch())
        assert len(trace._calls.kept) == 1
        for _ in range(50):
            model(batch())
        assert len(trace._calls.kept) == 8


def test_two_forwards_of_one_backward_are_both_kept() -> None:
    model = chain(torch.sqrt)
    with NonFiniteTrace(model) as trace:
        (model(batch()).sum() + model(batch() + 1).sum()).backward()
        assert trace.find().microbatch == 0


def test_a_model_whose_parts_are_called() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleList([identity(), identity()])
            self.decoder = chain(torch.sqrt)
            self.loss = nn.MSELoss()

        def training_step(self, x: Tensor) -> Tensor:
            for layer in self.encoder:
                x = layer(x)
            return self.loss(self.decoder(x), torch.zeros(4, 3))

    model = Parts()
    with NonFiniteTrace(model) as trace:
        model.training_step(batch()).backward()
        culprit = trace.find()
        assert (culprit.kind, culprit.module) == ("backward", "decoder.1")
        assert culprit.microbatches == 1
    with NonFiniteTrace(model) as trace, torch.no_grad():
        model.encoder[0].weight.zero_()
        model.encoder[0].bias.fill_(1e38)
        with torch.enable_grad():
            model.training_step(batch() * 0).backward()
        culprit = trace.find()
    assert (culprit.kind, culprit.module, culprit.overflows) == (
        "forward",
        "loss",
        "float32",
    )


def test_only_what_is_called_keeps_its_hooks() -> None:
    model = nn.Sequential(identity(), nn.Tanh(), identity())
    loss = nn.MSELoss()
    whole = nn.ModuleDict({"net": model, "loss": loss})
    with NonFiniteTrace(model) as one, NonFiniteTrace(whole) as both:
        for _ in range(2):
            model.zero_grad()
            loss(model(batch()), batch()).backward()
            assert [call.path for call in one._calls.kept] == [""]
            assert [call.path for call in both._calls.kept] == ["net", "loss"]
        assert not any(m._forward_hooks for m in model)
        assert len(model._forward_hooks) == 2


def test_tied_weights() -> None:
    model = nn.Sequential(identity(), nn.Tanh(), identity(), Act(torch.sqrt))
    model[2].weight = model[0].weight
    culprit = found(model, batch())
    assert (culprit.kind, culprit.module) == ("backward", "3")


def test_no_hook_stays_and_copies_are_free() -> None:
    model = nn.Sequential(identity(), nn.Tanh(), identity())
    trace = NonFiniteTrace(model)
    model(batch()).sum().backward()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    file = io.BytesIO()
    torch.save(model, file)
    for other in copies:
        calls = list(trace._calls.kept)
        assert torch.equal(other(batch()), model(batch()))
        assert len(trace._calls.kept) == len(calls) + 1
        other[0].weight.data.fill_(math.nan)
    trace.remove()
    trace.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_trace_that_was_removed_is_restored() -> None:
    model = chain(torch.sqrt)
    trace = NonFiniteTrace(model)
    trace.remove()
    for _ in range(2):
        trace.restore()
    assert len(model._forward_hooks) == len(model._forward_pre_hooks) == 1
    model(batch()).sum().backward()
    assert trace.find().function == "sqrt"
    trace.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_monitor_that_is_attached_again_traces_again() -> None:
    model = chain(torch.sqrt)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    findings: list[Finding] = []

    class Sink:
        def __call__(self, snapshot: Any) -> None:
            pass

        def finding(self, finding: Finding) -> None:
            findings.append(finding)

    with Monitor(
        model, optimizer, pathologies=True, trace=True, sinks=[Sink()]
    ) as monitor:
        monitor.detach()
        assert not model._forward_hooks
        monitor.attach(optimizer)
        for _ in range(3):
            model(batch()).sum().backward()
            optimizer.step()
    (lost,) = [finding for finding in findings if finding.code == "non_finite"]
    assert "Origin: div(1, 0) gives inf" in lost.symptom


def test_a_forward_that_raises_is_no_trap() -> None:
    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.root = identity(), Act(torch.sqrt)

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() < 0:
                raise KeyError("negative")
            return self.root(self.layer(x))

    model = Raises()
    with NonFiniteTrace(model) as trace:
        with pytest.raises(KeyError):
            model(-batch())
        model(batch()).sum().backward()
        assert trace.find().function == "sqrt"


def test_what_cannot_be_found_is_said() -> None:
    model = chain(torch.tanh)
    with NonFiniteTrace(model) as trace:
        assert "no forward of the model was seen" in str(trace.find())
        model(batch()).sum().backward()
        assert "are finite" in str(trace.find())
        model[1].function = len
        assert "the replay raised" in str(trace.find())


def test_a_penalty_on_the_weights() -> None:
    model = chain(torch.tanh)
    with NonFiniteTrace(model) as trace:
        with torch.no_grad():
            model[0].bias.zero_()
        (model(batch()).sum() + model[0].bias.sqrt().sum()).backward()
        culprit = trace.find()
    assert "does not go through the output" in culprit.note


def test_recurrent_weights() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return (self.lstm(x)[0][:, -1] * 0).sqrt()

    model = Last()
    x = torch.randn(2, 5, 3)
    culprit = found(model, x)
    assert (culprit.kind, culprit.function) == ("backward", "sqrt")
    flat = model.lstm._flat_weights
    assert all(a is b for a, b in zip(flat, model.parameters(), strict=True))
    assert torch.equal(model(x), torch.zeros(2, 4))


def test_leaves_outside_of_the_model_keep_their_gradient() -> None:
    outside = torch.ones(3, requires_grad=True)
    model = chain(lambda x: (x * outside).sqrt())
    with NonFiniteTrace(model) as trace:
        model(batch()).sum().backward()
        before = outside.grad.clone()
        assert trace.find().function == "sqrt"
    assert torch.equal(outside.grad.nan_to_num(), before.nan_to_num())


def watched_run(bad: int, **options: Any) -> tuple[list[Finding], NonFiniteTrace]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), Act(torch.exp), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    trace = NonFiniteTrace(model)
    watchdog = Watchdog(outputs=[], explain=[trace], **options)
    quantities = [GradNorm(), GradNonFinite(), ParamNorm()]
    with Monitor(model, optimizer, quantities=quantities, sinks=[watchdog]):
        for step in range(6):
            optimizer.zero_grad()
            x = torch.rand(4, 3)
            x[1] *= 1000 if step == bad else 1
            model(x).mean().backward()
            optimizer.step()
    trace.remove()
    return watchdog.findings, trace


def test_the_watchdog_names_the_culprit_of_the_first_bad_step() -> None:
    (finding,), trace = watched_run(bad=3)
    # Said when the weights are lost; the cause is of the step before.
    assert (finding.code, finding.step) == ("non_finite", 4)
    assert finding.evidence["first_step"] == 3
    culprit = trace.culprit
    assert culprit is not None
    assert (culprit.kind, culprit.op, culprit.module) == ("forward", "exp", "1")
    assert culprit.entries == (1,)
    assert finding.layers[0] == "1"
    assert "Origin: exp(" in finding.symptom
    assert "overflows float32" in finding.symptom
    assert finding.causes == (f"{culprit.call} in 1",)
    assert finding.experiment == culprit.advice
    assert "batch entry 1 of 4" in str(finding).replace("\n    ", " ")


def test_the_watchdog_without_a_culprit() -> None:
    findings, trace = watched_run(bad=-1)
    assert findings == []
    assert trace.culprit is None
    other = Finding("vanishing", 0, "it vanishes")
    assert trace(other) is other


def test_a_reading_of_other_quantities_starts_no_search() -> None:
    model = chain(torch.log)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with NonFiniteTrace(model) as trace:
        watchdog = Watchdog(outputs=[], explain=[trace])
        with Monitor(model, optimizer, quantities=[GradNorm()], sinks=[watchdog]):
            model(batch()).sum().backward()
            optimizer.step()
    assert trace.culprit is None


def test_a_step_that_grad_scaler_skips() -> None:
    model = chain(torch.exp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = state(model)
    with NonFiniteTrace(model) as trace:
        scaler.scale(model(batch() * 60).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        culprit = trace.find()
    assert all(map(torch.equal, before, state(model)))
    assert (culprit.op, culprit.overflows) == ("exp", "float32")


def test_a_compiled_model() -> None:
    model = chain(torch.sqrt)
    compiled = torch.compile(model, backend="eager")
    with NonFiniteTrace(compiled) as trace:
        compiled(batch()).sum().backward()
        culprit = trace.find()
    assert (culprit.kind, culprit.module) == ("backward", "1")


def test_compiling_afterwards_with_fullgraph_is_not_broken() -> None:
    model = chain(torch.sqrt)
    with NonFiniteTrace(model) as trace:
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        compiled(batch()).sum().backward()
        assert "what torch.compile returned" in trace.find().note


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"a torch.nn.Module, got \w*function"):
        NonFiniteTrace(torch.sqrt)
    with pytest.raises(ValueError, match="at least one call"):
        NonFiniteTrace(identity(), calls=0)
    with pytest.raises(TypeError, match="pass loss="):
        find_non_finite(chain(lambda x: x), batch(), loss=lambda y: 3)


def test_two_ranks(tmp_path: Path) -> None:
    script = Path(__file__).with_name("culprit_rank.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, os.fspath(script), str(rank), os.fspath(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.fspath(script.parents[2])},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=120)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    good, bad = (json.loads((tmp_path / f"{r}.json").read_text()) for r in range(2))
    for wrapped in ("ddp", "inner"):
        assert good[wrapped][0] == "unknown"
        assert "it may be the batch of another rank" in good[wrapped][1]
        assert bad[wrapped][0] == "backward"
        assert "in the backward of sqrt in 1" in bad[wrapped][1]
    assert "not run again under FSDP2" in good["fsdp"][1]
    assert "allreduce_.default needs every rank" in good["communicates"][1]
    for sharded in ("fsdp", "communicates"):
        assert (good[sharded][0], bad[sharded][0]) == ("unknown", "batch")


def test_a_lightning_run_whose_step_calls_the_parts() -> None:
    from pytorch_lightning import LightningModule, Trainer

    class Model(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(identity(), Act(torch.exp))
            self.findings: list[Finding] = []

        def training_step(self, x: Tensor, index: int) -> Tensor:
            return self.net(x * (100 if index == 3 else 1)).sum()

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader([batch()] * 6, batch_size=None)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

        def on_train_start(self) -> None:
            watchdog = Watchdog(
                outputs=[self.findings.append], explain=[NonFiniteTrace(self)]
            )
            optimizer = self.optimizers(use_pl_optimizer=False)
            quantities = [GradNorm(), GradNonFinite(), ParamNorm()]
            Monitor(self, optimizer, quantities=quantities, sinks=[watchdog])

    model = Model()
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar"), False
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet
    )
    trainer.fit(model)
    (finding,) = model.findings
    assert finding.evidence["first_step"] == 3
    assert finding.layers[0] == "net.1"
    assert "Origin: exp(" in finding.symptom


class Penalized(nn.Module):
    """The norm of the gradient with regard to the input, as some losses have it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = self.layer(x).sqrt().sum()
        (grad,) = torch.autograd.grad(y, x, create_graph=True)
        return grad.square().sum(1)


class Attends(nn.Module):
    """Attention, all keys of entry 1 padded."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., None].expand(4, 3, 4)
        padded = torch.arange(4)[:, None].expand(4, 3) == 1
        return self.attention(x, x, x, key_padding_mask=padded)[0]


class Looks(nn.Module):
    """Rows of a table, with a sparse gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return (self.table(x.long().flatten()) * 0).sqrt()


@torch.library.custom_op("gradlab_tests::ratio", mutates_args=())
def ratio(x: Tensor) -> Tensor:
    return x / x


@pytest.mark.parametrize(
    ("model", "kind", "name", "entries"),
    [
        (Penalized(), "backward", "sqrt", (2,)),
        (Attends(), "forward", "_softmax", (1,)),
        (Looks(), "backward", "sqrt", ()),
        (chain(torch.vmap(lambda row: row.log())), "forward", "log", (2,)),
        (chain(lambda x: ratio(x.detach()) * x), "forward", "ratio", (2,)),
        (
            chain(torch.fft.fft, torch.angle, lambda x: (x * 0).acosh()),
            "forward",
            "acosh",
            (0, 1, 2, 3),
        ),
        (
            nn.Sequential(
                identity(), nn.BatchNorm1d(3), Act(lambda x: (x * 1e38) * 1e38)
            ),
            "forward",
            "mul",
            (0, 1, 2, 3),
        ),
        (chain(lambda x: x.to(torch.float8_e5m2).float() / x), "forward", "div", (2,)),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_culprits(
    model: nn.Module, kind: str, name: str, entries: tuple[int, ...]
) -> None:
    culprit = find_non_finite(model, batch(), loss=torch.sum)
    assert culprit is not None
    assert (culprit.kind, culprit.function or culprit.op) == (kind, name)
    assert culprit.entries == entries


def test_batch_norm_that_overflows_is_not_blamed_on_its_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    culprit = find_non_finite(model, batch() * 1e38, loss=torch.sum)
    assert culprit is not None
    assert (culprit.op, culprit.overflows) == ("native_batch_norm", "float32")
    assert all(math.isfinite(operand.high) for operand in culprit.operands)


def test_the_loss_is_named_as_such() -> None:
    def loss(y: Tensor) -> Tensor:
        ignored = torch.full((4,), -100)
        return nn.functional.cross_entropy(y, ignored)

    culprit = find_non_finite(chain(torch.tanh), batch(), loss=loss)
    assert culprit is not None
    assert (culprit.op, culprit.module) == ("nll_loss_forward", "the loss")
    assert "cross_entropy(y, ignored)" in culprit.code
    assert "leave out batches" in culprit.advice


def test_healthy_models_have_no_culprit() -> None:
    assert (
        find_non_finite(chain(torch.tanh, torch.relu), batch(), loss=torch.sum) is None
    )
