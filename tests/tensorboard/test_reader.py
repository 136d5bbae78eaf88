import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from gradlab import Monitor
from gradlab.tensorboard import EventFileWriter, read_run


def watched(folder: Path, steps: range, scale: float = 1.0) -> list[float]:
    """Write a run of two layers whose gradient at a step is scale x (step + 1)."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    totals = []
    with Monitor(model, sinks=[EventFileWriter(folder, parameters=True)]) as monitor:
        for step in steps:
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, scale * (step + 1))
            totals.append(monitor.observe(step, "applied")["grad_norm", "total"])
    return totals


def test_a_run_is_read_back(tmp_path: Path) -> None:
    totals = watched(tmp_path, range(0, 30, 10))
    history = read_run(tmp_path)
    assert (history.quantity, history.stage) == ("grad_norm", "applied")
    assert history.steps.tolist() == [0, 10, 20]
    assert history.layers == ("0", "1")
    assert history.values.tolist() == [[1, 1], [11, 11], [21, 21]]
    assert history.available.all()
    np.testing.assert_allclose(history.total, totals, rtol=1e-6)
    assert history["1"].tolist() == [1, 11, 21]
    assert history["total"] is history.total
    with pytest.raises(KeyError, match="no layer '2'; layers are 0, 1"):
        history["2"]


def test_layers_are_in_the_order_of_the_model(tmp_path: Path) -> None:
    model = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("z", "a", "m")})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with Monitor(model, sinks=[EventFileWriter(tmp_path)]) as monitor:
        monitor.observe(0, "raw")
    assert read_run(tmp_path).layers == ("z", "a", "m")


def test_nothing_is_sampled_away(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path) as sink:
        monitor = Monitor(nn.Linear(1, 1), sinks=[sink])
        for parameter in monitor.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        for step in range(1500):
            monitor.observe(step, "raw")
    assert read_run(tmp_path).steps.tolist() == list(range(1500))


def test_a_missing_number_is_not_a_number_that_is_nan(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("grad_norm/a", 1.0, 0)
        writer.add_scalar("grad_norm/a", math.nan, 1)
        writer.add_scalar("grad_norm/b", 2.0, 1)
    history = read_run(tmp_path)
    np.testing.assert_array_equal(history.values, [[1, math.nan], [math.nan, 2]])
    assert history.available.tolist() == [[True, False], [True, True]]
    assert np.isnan(history.total).all()
    assert history.stage is None


def test_scalars_of_the_new_style_are_read_too(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("grad_norm/a", 0.5, 3, new_style=True)
    history = read_run(tmp_path)
    assert (history.steps.tolist(), history.values.tolist()) == ([3], [[0.5]])


def test_another_quantity_is_another_history(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("grad_norm/a", 1.0, 0)
        writer.add_scalar("grad_rms/a", 2.0, 0)
        writer.add_scalar("loss/train", 3.0, 0)
    assert read_run(tmp_path, "grad_rms").values.tolist() == [[2.0]]


def test_a_run_is_found_below_a_directory(tmp_path: Path) -> None:
    watched(tmp_path / "lightning_logs" / "version_0", range(2))
    with SummaryWriter(tmp_path / "hparams") as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert read_run(str(tmp_path)).steps.tolist() == [0, 1]


def test_a_resumed_run_is_one_run_and_its_later_numbers_count(tmp_path: Path) -> None:
    watched(tmp_path, range(6))
    watched(tmp_path, range(4, 8), scale=100.0)
    history = read_run(tmp_path)
    assert history.steps.tolist() == list(range(8))
    assert history["0"].tolist() == [1, 2, 3, 4, 500, 600, 700, 800]


def test_a_file_cut_off_in_a_record_is_read_up_to_there(tmp_path: Path) -> None:
    watched(tmp_path, range(5))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    assert read_run(tmp_path).steps.tolist() == [0, 1, 2, 3]


def test_several_runs_are_not_mixed(tmp_path: Path) -> None:
    for version in ("version_0", "version_1"):
        watched(tmp_path / version, range(2))
    with pytest.raises(
        ValueError, match=r"found 2 .* name one of version_0, version_1"
    ):
        read_run(tmp_path)


def test_what_is_not_a_run_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere', which is missing"):
        read_run(tmp_path / "nowhere")
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(FileNotFoundError, match=r"notes\.txt', which is a file"):
        read_run(file)
    with pytest.raises(
        FileNotFoundError, match=r"found none below .* did the run start"
    ):
        read_run(tmp_path)
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("loss/train", 1.0, 0)
    with pytest.raises(ValueError, match=r"of its tags: loss/train\); was gradlab"):
        read_run(tmp_path)


def test_a_tag_that_only_begins_like_the_quantity_is_another(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("grad_norm_2/a", 1.0, 0)
        writer.add_scalar("grad_norm", 1.0, 0)
    with pytest.raises(ValueError, match="found none"):
        read_run(tmp_path)
