"""What a step did, of any optimizer, against the same computed by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlab import Monitor, Snapshot
from gradlab.quantities import GradCosine, GradNorm, UpdateCosine, UpdateRatio

ALL = (UpdateRatio(), UpdateCosine(), GradCosine())


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
