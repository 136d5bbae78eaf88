"""Quantities of activations: the formula on plain tensors, of real modules."""

import math

import pytest
import torch
from torch import Tensor, nn

from gradlab import Monitor, layers, quantities
from gradlab.quantities import (
    ActivationMean,
    ActivationRMS,
    DeadUnits,
    InactiveCount,
    OutputGradRMS,
    OutsideCount,
    Quantity,
    Saturation,
    Total,
    UnitCount,
    active_units,
)

OF_ACTIVATIONS = [q for q in quantities.quantities if q.feed == "activation"]


def observe(
    module: nn.Module, x: Tensor, *chosen: Quantity, dtype: torch.dtype = torch.float32
) -> dict[str, float]:
    """The row of an activation function between a parameter and a loss."""
    model = nn.Sequential(nn.Linear(1, 1), module).to(dtype)
    monitor = Monitor(model, quantities=chosen or OF_ACTIVATIONS)
    leaf = x.to(dtype).clone().requires_grad_()
    module(leaf).square().sum().backward()
    found = monitor.observe_activations(0)
    monitor.detach()
    assert found is not None
    return {q: found[q, "1"] for q in found.quantities}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_formula(dtype: torch.dtype) -> None:
    x = torch.randn(64, 5) * 3
    y = torch.tanh(x.to(dtype)).double()
    found = observe(nn.Tanh(), x, dtype=dtype)
    assert found["activation_rms"] == pytest.approx(
        y.square().mean().sqrt().item(), rel=1e-2 if dtype == torch.bfloat16 else 1e-5
    )
    assert found["activation_mean"] == pytest.approx(y.mean().item(), abs=1e-3)
    assert found["output_grad_rms"] == pytest.approx(
        2 * y.square().mean().sqrt().item(), rel=1e-2
    )
    assert found["saturation"] == pytest.approx((y.abs() > 0.99).double().mean().item())
    assert found["dead_units"] == 0.0


@pytest.mark.parametrize(
    ("module", "low", "high"),
    [
        (nn.Tanh(), -0.99, 0.99),
        (layers.Tanh(), -0.99, 0.99),
        (nn.Sigmoid(), 0.01, 0.99),
        (layers.Sigmoid(), 0.01, 0.99),
        (nn.Softsign(), -0.859, 0.859),
    ],
)
def test_saturation_is_where_the_derivative_is_small(
    module: nn.Module, low: float, high: float
) -> None:
    x = torch.linspace(-12, 12, 1001)
    leaf = x.clone().requires_grad_()
    y = module(leaf)
    (slope,) = torch.autograd.grad(y.sum(), leaf)
    outside = (y < low) | (y > high)
    assert float(slope[outside].max() / slope.max()) < 0.041
    assert float(slope[~outside].min() / slope.max()) > 0.018
    found = observe(module, x, Saturation())
    assert found["saturation"] == pytest.approx(outside.double().mean().item())


def test_hard_functions_are_saturated_on_their_bounds() -> None:
    x = torch.tensor([-9.0, -0.5, 0.0, 0.5, 9.0, 9.0])
    assert observe(nn.Hardtanh(), x, Saturation())["saturation"] == pytest.approx(0.5)
    assert observe(nn.Hardsigmoid(), x, Saturation())["saturation"] == 0.5


@pytest.mark.parametrize("module", [nn.ReLU(), nn.GELU(), nn.ReLU6(), nn.Linear(1, 1)])
def test_other_modules_have_no_saturation(module: nn.Module) -> None:
    assert Saturation().moments_of(module) is None
    if not isinstance(module, nn.Linear):
        assert math.isnan(observe(module, torch.ones(2), Saturation())["saturation"])


def test_nan_shows() -> None:
    found = observe(nn.Tanh(), torch.tensor([[math.nan, 0.5]]))
    assert math.isnan(found["activation_rms"])
    assert math.isnan(found["activation_mean"])
    assert math.isnan(found["output_grad_rms"])
    assert found["saturation"] == 0.5
    assert found["dead_units"] == 0.0


def test_formulas_of_nothing() -> None:
    for quantity in (ActivationRMS(), ActivationMean(), OutputGradRMS(), Saturation()):
        assert quantity(*torch.zeros(2, dtype=torch.float64)) == 0.0
    assert DeadUnits()(*torch.zeros(3, dtype=torch.float64)) == 0.0


def test_half_precision_sums_do_not_saturate() -> None:
    ones = torch.ones(5000, dtype=torch.bfloat16)
    assert Total()([ones, ones], []).tolist() == [5000.0, 5000.0]


def test_outside_counts_nan() -> None:
    x = torch.tensor([0.0, 1.0, -1.0, 1.5, math.nan, -math.inf])
    assert OutsideCount(-1.0, 1.0)([x], []).tolist() == [3.0]


def test_units() -> None:
    x = torch.tensor([[0.0, -2.0], [0.0, math.nan]])
    assert active_units(x, -1).tolist() == [False, True]
    assert active_units(x.T.reshape(1, 2, 2, 1), 1).tolist() == [False, True]
    assert active_units(x[1], 0).tolist() == [False, True]
    late = torch.zeros(40, 3)
    late[39, 1] = 1e-40
    assert active_units(late, -1).tolist() == [False, True, False]
    assert active_units(late.T, 0).tolist() == [False, True, False]
    assert active_units(late + 1, -1).tolist() == [True] * 3
    kept = active_units(torch.ones(100, 3), -1)
    assert kept.untyped_storage().nbytes() == 3


def test_units_are_counted_for_many_layers_at_once() -> None:
    yes, no = torch.tensor([True, True, True]), torch.tensor([True, False])
    outputs, grads = [yes, no, yes], [yes, ~no, ~yes]
    assert InactiveCount()(outputs, grads).tolist() == [0.0, 2.0, 3.0]
    assert UnitCount()(outputs, grads).tolist() == [3.0, 2.0, 3.0]
