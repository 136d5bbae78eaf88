"""The bench of the monitor: its networks are as said, its figures and gates hold."""

import gc
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.bench import monitor
from experiments.bench._monitor import _disk
from experiments.bench._monitor._memory import used
from experiments.bench._monitor._nets import (
    Training,
    gpt,
    small_tensors,
    tiny_tensors,
    vanishing,
)
from experiments.bench._monitor._pairs import Pairs, interval, pairs, result
from experiments.bench._monitor._row import Part, Row
from experiments.bench._monitor._scaling import slope
from experiments.bench._monitor._steps import (
    GPT_GATES,
    GRADLAB,
    NORMS,
    PEERS,
    SMALL_GATES,
)
from experiments.bench._monitor._watches import histograms, lightning_norms
from gradlab.quantities import GradNorm


def norms(training: Training) -> list[float]:
    training.step()
    return [p.grad.double().norm().item() for p in training.model.parameters()]


def test_the_ordinary_net_of_150_tensors_has_a_gradient_of_one_size() -> None:
    found = norms(small_tensors())
    assert len(found) == 150
    assert max(found) < 1e3 * min(found)


def test_the_vanishing_one_falls_out_of_the_range_of_float32_squares() -> None:
    assert min(norms(vanishing())) < 1e-15


def test_the_gpt_has_the_size_that_the_gate_is_about() -> None:
    training = gpt()
    sizes = [p.numel() for p in training.model.parameters()]
    assert 5.5e6 < sum(sizes) < 6.5e6
    assert len(sizes) == 149
    assert min(norms(training)) > 1e-15


def test_tiny_tensors_have_gradients_before_any_step() -> None:
    training = tiny_tensors(10)
    assert len(list(training.model.parameters())) == 10
    assert all(p.grad is not None for p in training.model.parameters())


def test_every_gate_is_of_something_measured() -> None:
    assert GPT_GATES.keys() | SMALL_GATES.keys() <= GRADLAB.keys()


@pytest.mark.parametrize("name", [*GRADLAB, *PEERS])
def test_every_way_of_watching_logs_and_lets_go(name: str, tmp_path: Path) -> None:
    training, bare = tiny(), tiny()
    with (GRADLAB | PEERS)[name](training, tmp_path):
        training.step()
        training.step()
    bare.step()
    bare.step()
    assert any(path.stat().st_size > 100 for path in tmp_path.rglob("events*"))
    hooks = (
        training.optimizer._optimizer_step_pre_hooks,
        training.optimizer._optimizer_step_post_hooks,
        *(module._forward_hooks for module in training.model.modules()),
        *(p._backward_hooks or {} for p in training.model.parameters()),
    )
    assert not any(hooks)
    for watched, unwatched in zip(
        training.model.parameters(), bare.model.parameters(), strict=True
    ):
        assert watched.equal(unwatched)


def tiny() -> Training:
    """Two layers, trained as the large ones are."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    )
    optimizer, x = torch.optim.SGD(model.parameters(), 1e-2), torch.randn(8, 4)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return Training(model, optimizer, step)


def test_a_histogram_has_all_entries_of_the_gradient(tmp_path: Path) -> None:
    training = tiny()
    with histograms(training, tmp_path):
        training.step()
    events = EventAccumulator(str(tmp_path), {"histograms": 0}).Reload()
    (event,) = events.Histograms("0.weight")
    assert sum(event.histogram_value.bucket) == event.histogram_value.num == 16


def test_lightnings_norms_are_those_of_the_parameters(tmp_path: Path) -> None:
    training = tiny()
    with lightning_norms(training, tmp_path):
        training.step()
    (folder,) = {path.parent for path in tmp_path.rglob("events*")}
    events = EventAccumulator(str(folder)).Reload()
    assert len(events.Tags()["scalars"]) == 5
    (event,) = events.Scalars("grad_2.0_norm/0.weight")
    norm = next(training.model.parameters()).grad.norm().item()
    assert event.value == pytest.approx(norm, rel=1e-3)


def test_pairs_are_timed_in_both_roles_and_the_collector_is_let_go() -> None:
    watches = {NORMS: GRADLAB[NORMS]}
    one = result(pairs(tiny, watches, {}, seconds=1e-9, turn=0.0))[NORMS]
    assert len(one.watched) == len(one.unwatched) == len(one.cpu) == 3
    assert min(one.watched + one.unwatched) > 0
    assert gc.get_freeze_count() == 0


def test_a_way_is_decided_when_the_interval_is_clear_of_its_gate() -> None:
    one = Pairs([1.1 + 0.001 * i for i in range(20)], [1.0] * 20)
    assert one.decided(0.05)
    assert one.decided(0.2)
    assert one.decided(None)
    assert not one.decided(0.11)
    assert not Pairs(one.watched[:5], one.unwatched[:5]).decided(0.05)


def test_the_interval_of_few_values_is_all_of_them() -> None:
    assert interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_the_slope_is_that_of_the_steeper_decade() -> None:
    assert slope((10, 100, 1000), [1.0, 5.0, 500.0]) == pytest.approx(2.0)
    assert math.isnan(slope((10, 100), [0.0, 1.0]))


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("", 2.0, "%"), True),
        (Row("", 2.0, "%", gate=2.0), True),
        (Row("", 2.1, "%", gate=2.0), False),
        (Row("", 49.0, "x", gate=50.0, least=True), False),
        (Row("", 51.0, "x", gate=50.0, least=True), True),
        (Row("", math.nan, "slope", gate=1.1), False),
    ],
)
def test_a_gate_is_met_or_missed(
    row: Row, met: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert row.met == met
    assert monitor.report({}, {"part": Part("title", [row])}) == 1 - met
    assert ("missed" in capsys.readouterr().out) != met


def test_bytes_are_of_the_numbers_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_disk, "STEPS", 2)
    monkeypatch.setattr(_disk, "SETS", {"norms": {"quantities": [GradNorm()]}})
    _, rows = result(_disk.disk(quick=False))
    # Two steps of 75 layers and a total; with the 150 parameters below them.
    for row, numbers in zip(rows, (2 * 76, 2 * 226), strict=True):
        assert row.note.endswith(f"for {numbers} numbers")
        assert row.value * numbers > 4 * numbers
        assert not row.met


def test_what_is_kept_is_seen() -> None:
    before = used()
    kept = torch.ones(2**24), [object() for _ in range(9_999)]
    after = used()
    assert after[0] - before[0] > 60_000
    assert after[1] - before[1] > 9_000
    del kept


def test_one_part_as_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "row", "value": 6.0, "unit": "bytes"}
    said = [json.dumps(one) for one in ({"done": 0.5}, {"title": "", "rows": [row]})]
    # As the process of a part would.
    run = [sys.executable, "-c", f"print(*{said!r}, sep=chr(10))"]
    popen = partial(subprocess.Popen, run, stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr(monitor, "start", lambda *_: popen())
    file = tmp_path / "figures.json"
    command = ["monitor", "--only", "disk", "memory", "--json", str(file)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        monitor.main()
    assert end.value.code == 0
    assert "gates: 0 of 0 met" in capsys.readouterr().out
    parts = json.loads(file.read_text())["parts"]
    assert [parts[name]["rows"][0]["value"] for name in ("disk", "memory")] == [
        6.0,
        6.0,
    ]


def test_a_part_that_fails_ends_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    run = [sys.executable, "-c", "raise SystemExit(3)"]
    popen = partial(subprocess.Popen, run, stdout=subprocess.PIPE, text=True)
    monkeypatch.setattr(monitor, "start", lambda *_: popen())
    monkeypatch.setattr("sys.argv", ["monitor", "--only", "disk"])
    with pytest.raises(SystemExit, match="disk failed with 3"):
        monitor.main()


@pytest.mark.parametrize(
    "arguments", [["--only", "dusk"], ["--json", "/nowhere/at/all.json"]]
)
def test_a_mistake_is_said_before_anything_is_measured(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["monitor", *arguments])
    with pytest.raises(SystemExit) as end:
        monitor.main()
    assert end.value.code == 2
    assert arguments[1] in capsys.readouterr().err
