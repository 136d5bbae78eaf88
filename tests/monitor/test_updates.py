"""What a step did, of any optimizer, against the same computed by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlab import Monitor, Snapshot
from gradlab.quantities import GradCosine, GradNorm, UpdateCosine, UpdateRatio

ALL = (UpdateRatio(), UpdateCosine(), GradCosine())


def watch(model: nn.Module, optimizer: Any) -> tuple[Monitor, list[Snapshot]]:
    seen: list[Snapshot] = []
    return Monitor(model, optimizer, quantities=ALL, sinks=[seen.append]), seen


def channels_last() -> nn.Module:
    return nn.Conv2d(64, 80, 3).to(memory_format=torch.channels_last)


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors])


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a, b, dim=0).item()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.AdamW(p, 0.01),
        lambda p: torch.optim.Adam(p, 0.01, fused=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, foreach=True),
    ],
    ids=["sgd", "adamw", "fused", "momentum"],
)
def test_against_the_whole_tensors(make: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = make(model.parameters())
    seen: list[Snapshot] = []
    last: Tensor | None = None
    with Monitor(model, optimizer, quantities=(GradNorm(), *ALL), sinks=[seen.append]):
        for step in range(3):
            seen.clear()
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            before = flat(model.parameters())
            grad = flat(p.grad for p in model.parameters())
            optimizer.step()
            update = flat(model.parameters()) - before
            found = {q: s[q, "total"] for s in seen for q in s.quantities}
            assert found["update_ratio"] == pytest.approx(
                (update.norm() / before.norm()).item(), rel=1e-4
            )
            assert found["update_cosine"] == pytest.approx(
                cosine(grad, update), abs=1e-4
            )
            if last is None:
                assert "grad_cosine" not in found
            else:
                assert found["grad_cosine"] == pytest.approx(
                    cosine(last, grad), abs=1e-5
                )
            last = grad
            assert {s.step for s in seen} == {step}


def test_a_large_tensor_is_sampled() -> None:
    model = nn.Linear(400, 500)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    seen: list[Snapshot] = []
    with Monitor(model, optimizer, quantities=ALL, sinks=[seen.append]):
        model(torch.randn(8, 400)).square().mean().backward()
        before = flat(model.parameters())
        optimizer.step()
    update = flat(model.parameters()) - before
    (snapshot,) = [s for s in seen if "update_ratio" in s.quantities]
    found = snapshot["update_ratio", "total"]
    assert found == pytest.approx((update.norm() / before.norm()).item(), rel=0.05)


@pytest.mark.parametrize("rows", [6, 3000])
def test_a_sparse_gradient_is_that_of_the_same_entries(rows: int) -> None:
    def train(sparse: bool) -> list[Snapshot]:
        torch.manual_seed(0)
        model = nn.Embedding(rows, 4, sparse=sparse)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        seen: list[Snapshot] = []
        with Monitor(model, optimizer, quantities=ALL, sinks=[seen.append]):
            for step in range(3):
                optimizer.zero_grad()
                index = torch.randint(rows, (rows // 3 + step,))
                model(index).square().sum().backward()
                optimizer.step()
        return seen

    for one, other in zip(train(False), train(True), strict=True):
        assert one.quantities == other.quantities
        torch.testing.assert_close(one.values, other.values)


def test_an_lbfgs_step_is_measured_as_a_whole() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    x, seen = torch.randn(8, 3), []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        return loss

    before = flat(model.parameters())
    with Monitor(model, optimizer, quantities=[UpdateRatio()], sinks=[seen.append]):
        optimizer.step(closure)
    update = flat(model.parameters()) - before
    found = seen[0]["update_ratio", "total"]
    assert found == pytest.approx((update.norm() / before.norm()).item(), rel=1e-4)


def test_a_parameter_without_a_gradient_has_no_number() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen: list[Snapshot] = []
    with Monitor(model, optimizer, quantities=ALL, sinks=[seen.append]):
        model["used"](torch.ones(1, 2)).sum().backward()
        optimizer.step()
    for snapshot in seen:
        rows = {tag.split("/", 1)[1] for tag in snapshot.scalars()}
        assert rows == {"total", "used"}


def test_only_steps_that_are_read_are_sampled() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen: list[Snapshot] = []
    monitor = Monitor(
        model, optimizer, quantities=ALL, every_n_steps=3, sinks=[seen.append]
    )
    for _ in range(7):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    monitor.detach()
    assert sorted({s.step for s in seen}) == [0, 3, 6]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(400, 500), (8, 400)),
        (channels_last, (4, 64, 6, 6)),
        (lambda: nn.LSTM(64, 96), (6, 64)),
    ],
    ids=["linear", "channels last", "lstm"],
)
def test_samples_are_near_the_whole(make: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    monitor, seen = watch(model, optimizer)
    expected: dict[str, float] = {}
    last: Tensor | None = None
    for _ in range(2):
        optimizer.zero_grad()
        found = model(torch.randn(shape))
        y = found[0] if isinstance(found, tuple) else found
        y.square().mean().backward()
        before = flat(model.parameters())
        grad = flat(p.grad for p in model.parameters())
        optimizer.step()
        update = flat(model.parameters()) - before
        expected["update_ratio"] = (update.norm() / before.norm()).item()
        expected["update_cosine"] = cosine(grad, update)
        if last is not None:
            expected["grad_cosine"] = cosine(last, grad)
        last = grad
    monitor.detach()
    for name, value in expected.items():
        assert seen[-1][name, "total"] == pytest.approx(value, abs=0.05, rel=0.05), name


def test_a_gradient_laid_out_otherwise_is_sampled_at_the_same_places() -> None:
    weight = torch.randn(100, 90)
    model = nn.Linear(90, 100, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, seen = watch(model, optimizer)
    model.weight.grad = weight.T.contiguous().T
    optimizer.step()
    monitor.detach()
    # Plain SGD goes against the gradient, entry by entry.
    assert seen[0]["update_cosine", "total"] == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
def test_every_dtype_is_measured(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 4, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    monitor, seen = watch(model, optimizer)
    model(torch.randn(2, 3, dtype=dtype)).abs().square().sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    monitor.detach()
    moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    norm = nn.utils.get_total_norm
    expected = (norm(moved) / norm(before)).item()
    assert seen[0]["update_ratio", "total"] == pytest.approx(expected, rel=1e-2)


def test_what_is_unfrozen_is_followed() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, seen = watch(model, optimizer)
    for step in range(2):
        if step:
            model[0].requires_grad_(True)
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    monitor.detach()
    assert "update_ratio/0" not in seen[0].scalars()
    assert "update_ratio/0" in seen[1].scalars()
