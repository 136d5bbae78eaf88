"""The gains of weights and of activation functions, against Jacobians and the whole."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab import Monitor, Snapshot, layers
from gradlab.quantities import ActivationGain, OutputGradRMS, WeightGain

GAINS = (WeightGain(), ActivationGain(), OutputGradRMS())


def observe(model: nn.Module, *batches: Tensor) -> Snapshot:
    monitor = Monitor(model, quantities=GAINS)
    for batch in batches:
        model(batch).float().square().mean().backward()
    found = monitor.observe_activations(0)
    monitor.detach()
    assert found is not None
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    return found


def chain(activation: Callable[[], nn.Module], depth: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    modules = [m for _ in range(depth) for m in (nn.Linear(20, 20), activation())]
    return nn.Sequential(nn.Linear(5, 20), *modules, nn.Linear(20, 3))


def product(found: Snapshot, column: str, start: int = 1) -> float:
    return found.column(column)[start:].nan_to_num(nan=1.0).prod().item()


@pytest.mark.parametrize(
    "activation",
    [
        nn.Tanh,
        nn.Sigmoid,
        nn.SiLU,
        nn.PReLU,
        lambda: nn.ReLU(inplace=True),
        lambda: nn.LayerNorm(20),
        layers.GELU,
        layers.ReLU,
    ],
)
def test_the_product_over_depth_is_the_ratio_of_the_gradients(
    activation: Callable[[], nn.Module],
) -> None:
    found = observe(chain(activation), torch.randn(30, 5))
    rms = found.column("output_grad_rms")
    both = product(found, "weight_gain") * product(found, "activation_gain")
    assert both == pytest.approx((rms[0] / rms[-1]).item(), rel=1e-4)


def test_the_product_holds_in_a_convolutional_net() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3)),
        *(nn.Sigmoid(), nn.Flatten(), nn.Linear(96, 2)),
    )
    found = observe(model, torch.randn(5, 3, 8, 8))
    rms = found.column("output_grad_rms")
    both = product(found, "weight_gain") * product(found, "activation_gain")
    assert both == pytest.approx((rms[0] / rms[-1]).item(), rel=1e-4)


def test_definition() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 7))
    one, other = torch.randn(6, 3), torch.randn(2, 3)
    kept: list[list[Tensor]] = []
    for x in (one, other):
        x = model[0](x)
        y = model[1](x)
        z = model[2](y)
        for t in (x, y, z):
            t.retain_grad()
        z.square().mean().backward()
        kept.append([t.grad for t in (x, y, z)])
    at_x, at_y, at_z = (
        torch.cat([grad.flatten() for grad in grads])
        for grads in zip(*kept, strict=True)
    )
    found = observe(model, one, other)
    for column, row, expected in (
        ("activation_gain", "1", at_x.square().mean() / at_y.square().mean()),
        ("weight_gain", "2", at_y.square().mean() / at_z.square().mean()),
    ):
        assert found[column, row] == pytest.approx(expected.sqrt().item(), rel=1e-5)
    assert found.available.tolist() == [
        [False, False, True],
        [False, True, True],
        [True, False, True],
    ]


def test_sigmoids_are_to_blame_in_one_net_and_small_weights_in_another() -> None:
    deep = chain(nn.Sigmoid)
    for module in deep.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
    found = observe(deep, torch.randn(30, 5))
    assert product(found, "activation_gain") < 1e-3
    assert product(found, "weight_gain") > 0.1
    small = chain(nn.Tanh)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(0.1)
    found = observe(small, torch.randn(30, 5))
    assert product(found, "activation_gain") > 0.99
    assert product(found, "weight_gain") < 1e-7


class Residual(nn.Module):
    def __init__(self, how: str = "plain") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fc, self.act = nn.Linear(5, 8), nn.Linear(8, 8), nn.Tanh()
        self.how = how

    def branch(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.how == "plain":
            return x + self.branch(x)
        reentrant = self.how == "reentrant"
        return x + checkpoint(self.branch, x, use_reentrant=reentrant)


def test_what_other_consumers_send_back_does_not_count() -> None:
    model, batch = Residual(), torch.randn(30, 5)
    x = model.stem(batch)
    y = model.fc(x)
    y.retain_grad()
    (x + model.act(y)).square().mean().backward()
    back = y.grad @ model.fc.weight
    expected = (back.square().mean() / y.grad.square().mean()).sqrt().item()
    assert observe(model, batch)["weight_gain", "fc"] == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("how", ["checkpoint", "reentrant"])
def test_checkpointing_changes_no_gain(how: str) -> None:
    batch = torch.randn(30, 5)
    plain, other = observe(Residual(), batch), observe(Residual(how), batch)
    assert plain.rows == other.rows
    torch.testing.assert_close(plain.values, other.values, equal_nan=True)


def test_under_autocast() -> None:
    batch = torch.randn(30, 5)
    plain = observe(chain(nn.Tanh), batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = observe(chain(nn.Tanh), batch)
    assert torch.equal(plain.available, half.available)
    torch.testing.assert_close(
        plain.values, half.values, rtol=0.03, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(backend: str) -> None:
    batch = torch.randn(30, 5)
    plain = observe(chain(nn.Tanh, 2), batch)
    model = chain(nn.Tanh, 2)
    monitor = Monitor(model, quantities=GAINS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.compile(model, backend=backend)(batch).square().mean().backward()
    found = monitor.observe_activations(0)
    assert found is not None
    torch.testing.assert_close(plain.values, found.values, equal_nan=True)


def test_within_torch_func_nothing_is_measured() -> None:
    model = chain(nn.Tanh, 1)
    monitor = Monitor(model, quantities=GAINS)
    x, parameters = torch.randn(4, 5), dict(model.named_parameters())

    def objective(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,)).sum()

    torch.func.grad(objective)(parameters)
    torch.vmap(model)(x)
    assert monitor.observe_activations(0) is None


def test_frozen_layers_and_a_batch_that_needs_a_gradient() -> None:
    model = chain(nn.Tanh)
    found = observe(model, torch.randn(30, 5, requires_grad=True))
    assert found["weight_gain", "0"] > 0
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    assert observe(model, torch.randn(30, 5)).rows[0].name == "3"


def test_watching_gains_changes_no_weight() -> None:
    def train(watch: bool) -> list[Tensor]:
        model = chain(lambda: nn.ReLU(inplace=True))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        monitor = Monitor(model, optimizer, quantities=GAINS) if watch else None
        for _ in range(50):
            optimizer.zero_grad()
            model(torch.randn(30, 5)).square().mean().backward()
            optimizer.step()
        if monitor is not None:
            monitor.detach()
        return [p.detach() for p in model.parameters()]

    for one, other in zip(train(False), train(True), strict=True):
        assert torch.equal(one, other)


def test_no_graph_outlives_its_step() -> None:
    model = chain(nn.Tanh, 1)
    monitor = Monitor(model, quantities=GAINS)
    with pytest.raises(RuntimeError, match="shapes"):
        model[1](model[0](torch.randn(2, 5))[:, :3])
    monitor.observe_activations(0)
    taps = monitor._reader.activations._taps
    assert all(tap.edge is None for tap in taps.taps)
    twin = copy.deepcopy(model)
    twin(torch.randn(2, 5)).sum().backward()
    assert monitor.observe_activations(1) is None
