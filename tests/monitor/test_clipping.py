import pytest
import torch
from torch import Tensor, nn

from gradlab import Monitor, Snapshot
from gradlab.quantities import ClipCoefficient, GradNorm


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def backward(model: nn.Module) -> None:
    model(torch.randn(5, 3)).square().sum().backward()


def test_before_and_after_clipping_by_norm() -> None:
    model, seen, before = mlp(), [], []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, sinks=[seen.append]) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            backward(model)
            monitor.before_clipping()
            total = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            before.append(total.item())
            optimizer.step()
    norms = [s for s in seen if "grad_norm" in s.quantities]
    assert [(s.step, s.stage) for s in norms] == [
        (step, stage) for step in range(3) for stage in ("unscaled", "applied")
    ]
    assert [s["grad_norm", "total"] for s in norms[::2]] == pytest.approx(before)
    assert [s["grad_norm", "total"] for s in norms[1::2]] == pytest.approx(
        [min(0.5, b) for b in before], rel=1e-4
    )
    coefficients = [s for s in seen if s.quantities == ("clip_coefficient",)]
    for snapshot, total in zip(coefficients, before, strict=True):
        expected = min(1.0, 0.5 / (total + 1e-6))
        for row in ("total", "0", "2", "2.bias"):
            found = snapshot["clip_coefficient", row]
            assert found == pytest.approx(expected, rel=1e-5)


def test_clipping_by_value_differs_between_rows() -> None:
    model, seen = nn.Linear(2, 1), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    watched = [ClipCoefficient()]
    with Monitor(model, optimizer, quantities=watched, sinks=[seen.append]) as monitor:
        model.weight.grad = torch.tensor([[3.0, 4.0]])
        model.bias.grad = torch.tensor([0.5])
        monitor.before_clipping(optimizer)
        nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimizer.step()
    (found,) = seen
    assert found["clip_coefficient", "weight"] == pytest.approx(2**0.5 / 5)
    assert found["clip_coefficient", "bias"] == 1.0


def test_a_step_that_is_not_read_is_not_read_before_clipping() -> None:
    model, seen = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, every_n_steps=2, sinks=[seen.append]) as monitor:
        for _ in range(4):
            backward(model)
            monitor.before_clipping()
            optimizer.step()
    assert {s.step for s in seen} == {0, 2}


def test_a_step_without_it_has_no_coefficient() -> None:
    model, seen = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, sinks=[seen.append]):
        backward(model)
        optimizer.step()
    assert not any("clip_coefficient" in s.quantities for s in seen)


def test_unscaled_before_clipping_under_a_scaler() -> None:
    model, seen = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scaler = torch.amp.grad_scaler.GradScaler("cpu", init_scale=256.0)
    quantities = [GradNorm(), ClipCoefficient()]
    sinks = [seen.append]
    with Monitor(model, optimizer, quantities=quantities, sinks=sinks) as monitor:
        loss: Tensor = model(torch.ones(2, 3)).square().sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        monitor.before_clipping()
        total = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
    stages = {s.stage: s for s in seen if "grad_norm" in s.quantities}
    assert stages["unscaled"]["grad_norm", "total"] == pytest.approx(total.item())
    assert stages["applied"]["grad_norm", "total"] == pytest.approx(0.1, rel=1e-4)


def test_it_is_about_watched_optimizers() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with pytest.raises(ValueError, match="got none that is watched"):
        Monitor(model).before_clipping()
    other = torch.optim.Adam(model.parameters())
    with (
        Monitor(model, optimizer) as monitor,
        pytest.raises(ValueError, match="got a Adam that is not"),
    ):
        monitor.before_clipping(other)


def test_modules_choose_the_rows_and_the_total_stays_whole() -> None:
    model, seen = mlp(), list[Snapshot]()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, modules=["2"], sinks=[seen.append]):
        backward(model)
        expected = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        optimizer.step()
    for snapshot in seen:
        names = [row.name for row in snapshot.rows]
        assert names == ["total", "2", "2.weight", "2.bias"]
    assert seen[0]["grad_norm", "total"] == pytest.approx(expected.item())
    with pytest.raises(ValueError, match=r"got 'head\*', which fits none of 0, 2"):
        Monitor(model, modules=["head*"])


@pytest.mark.parametrize("lbfgs", [False, True])
def test_within_a_closure(lbfgs: bool) -> None:
    model, seen = mlp(), list[Snapshot]()
    optimizer = (
        torch.optim.LBFGS(model.parameters(), 0.01, max_iter=4)
        if lbfgs
        else torch.optim.SGD(model.parameters(), 0.01)
    )
    x = torch.randn(5, 3)
    sinks = [seen.append]
    with Monitor(model, optimizer, every_n_steps=2, sinks=sinks) as monitor:

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            monitor.before_clipping()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            return loss

        for _ in range(3):
            optimizer.step(closure)
    norms = [(s.step, s.stage) for s in seen if "grad_norm" in s.quantities]
    assert norms == [(i, stage) for i in (0, 2) for stage in ("unscaled", "applied")]
    coefficients = [s for s in seen if "clip_coefficient" in s.quantities]
    assert [s.step for s in coefficients] == [0, 2]
    assert all(s["clip_coefficient", "total"] < 1 for s in coefficients)


def test_of_two_readings_before_a_step_the_later_counts() -> None:
    model, seen = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, sinks=[seen.append]) as monitor:
        backward(model)
        monitor.before_clipping()
        backward(model)
        total = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        monitor.before_clipping()
        assert not seen
        optimizer.step()
    (early,) = (s for s in seen if s.stage == "unscaled")
    assert early["grad_norm", "total"] == pytest.approx(total.item())


def test_a_step_that_never_came_has_its_reading_before_clipping() -> None:
    model, seen, step = mlp(), [], 0
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, clock=lambda: step, sinks=[seen.append]) as monitor:
        for step in range(2):  # noqa: B007 the clock reads it
            backward(model)
            monitor.before_clipping()
        assert [(s.step, s.stage) for s in seen] == [(0, "unscaled")]
    assert [(s.step, s.stage) for s in seen] == [(0, "unscaled"), (1, "unscaled")]


def test_a_gradient_that_nobody_clips_is_read_once() -> None:
    model, seen = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    watched = [GradNorm(), ClipCoefficient()]
    with Monitor(model, optimizer, quantities=watched, sinks=[seen.append]) as monitor:
        backward(model)
        monitor.before_clipping()
        optimizer.step()
    assert [s.stage for s in seen] == ["unscaled"]
