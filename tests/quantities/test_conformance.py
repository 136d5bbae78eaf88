"""Every quantity: the formula on plain tensors, of a parameter and of whole layers."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gradlab import Monitor, quantities
from gradlab.quantities import GradBelow, Quantity


def below(g: Tensor, smallest: float) -> Tensor:
    return (g[g != 0].abs() < smallest).double().mean()


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_norm": lambda w, g: g.norm(),
    "grad_rms": lambda w, g: g.square().mean().sqrt(),
    "grad_max": lambda w, g: g.abs().max(),
    "grad_nonfinite": lambda w, g: (~g.isfinite()).sum(),
    "grad_zeros": lambda w, g: (g == 0).double().mean(),
    "grad_below_float16": lambda w, g: below(g, 2.0**-14),
    "grad_below_bfloat16": lambda w, g: below(g, 2.0**-126),
    "grad_below_float8_e4m3fn": lambda w, g: below(g, 2.0**-6),
    "grad_below_float8_e5m2": lambda w, g: below(g, 2.0**-14),
    "suggested_loss_scale": lambda w, g: (4094 / g.abs().max()).log2().floor().exp2(),
    "param_norm": lambda w, g: w.norm(),
    "grad_to_param": lambda w, g: g.norm() / w.norm(),
}

OF_GRADIENTS = [q for q in quantities.quantities if q.feed == "gradient"]
ALL = pytest.mark.parametrize("quantity", OF_GRADIENTS, ids=lambda q: q.name)


@ALL
@pytest.mark.parametrize("scale", [1.0, 1024.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_formula(quantity: Quantity, scale: float, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    model(torch.randn(5, 3, dtype=dtype)).square().sum().backward()
    parameters = dict(model.named_parameters())
    grads = {n: p.grad.clone() for n, p in parameters.items()}
    for p in parameters.values():
        p.grad.mul_(scale)
    snapshot = Monitor(model, quantities=[quantity]).observe(0, "raw", scale)
    groups = {name: [name] for name in parameters}
    groups |= {"0": ["0.weight", "0.bias"], "total": list(parameters)}
    for row, names in groups.items():
        w, g = (
            torch.cat([t[n].detach().double().flatten() for n in names])
            for t in (parameters, grads)
        )
        expected = FORMULAS[quantity.name](w, g).item()
        assert snapshot[quantity.name, row] == pytest.approx(expected, rel=1e-3), row


@ALL
def test_nan_shows_or_is_counted(quantity: Quantity) -> None:
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[math.nan, 1.0]])
    model.bias.grad = torch.ones(1)
    found = Monitor(model, quantities=[quantity]).observe(0, "raw")
    number = found[quantity.name, "total"]
    counted = {"grad_nonfinite": 1.0, "grad_zeros": 0.0}
    if isinstance(quantity, GradBelow):
        assert number == 0.0
    elif quantity.name in counted:
        assert number == counted[quantity.name]
    elif quantity.name != "param_norm":
        assert math.isnan(number)


def test_all_together_share_their_moments() -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    found = Monitor(model, quantities=OF_GRADIENTS).observe(0, "raw")
    assert found.quantities == tuple(FORMULAS)
    assert bool(found.available[:, : len(FORMULAS)].all())


def test_every_file_is_exported_and_in_the_list() -> None:
    folder = Path(quantities.__file__).parent
    stems = {path.stem.removeprefix("_") for path in folder.glob("_[a-z]*.py")}
    names = {q.name.partition("_float")[0] for q in quantities.quantities}
    names = {name.partition("_bfloat")[0] for name in names}
    assert (
        stems
        - {
            "activation_moments",
            "exponents",
            "moment",
            "moments",
            "quantity",
            "sample",
        }
        == names
    )
    # Updates and activations are held against formulas in tests/monitor.
    assert {q.name for q in OF_GRADIENTS} == set(FORMULAS)
