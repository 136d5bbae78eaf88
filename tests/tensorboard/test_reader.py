# Protobuf makes the classes of its modules at import.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.compat.proto import event_pb2, summary_pb2
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import gradlab
from gradlab import Monitor, Row, Snapshot
from gradlab.quantities import GradNorm
from gradlab.tensorboard import EventFileWriter, quantities_in, read_run
from gradlab.tensorboard._records import records
from gradlab.tensorboard._writer import Scalars


def watched(
    folder: Path, steps: range, scale: float = 1.0, scalars: Scalars = "all"
) -> list[float]:
    """Write a run of two layers whose gradient at a step is scale x (step + 1)."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    totals = []
    sink = EventFileWriter(folder, parameters=True, scalars=scalars)
    with Monitor(model, quantities=[GradNorm()], sinks=[sink]) as monitor:
        for step in steps:
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, scale * (step + 1))
            totals.append(monitor.observe(step, "applied")["grad_norm", "total"])
    return totals


def write(folder: Path, *snapshots: Snapshot, parameters: bool = False) -> None:
    with EventFileWriter(folder, parameters, scalars="off") as sink:
        for one in snapshots:
            sink(one)


def ones(step: int, *rows: Row, norm: float = 1.0) -> Snapshot:
    values = torch.full((len(rows), 1), norm, dtype=torch.float64)
    return Snapshot(step, "applied", rows, ("grad_norm",), values, values == values)


TOTAL, A, B, C = Row("total", "total"), *(Row(name, "layer") for name in "abc")


@pytest.mark.parametrize("scalars", ["all", "top", "off"])
def test_a_run_is_read_back(tmp_path: Path, scalars: Scalars) -> None:
    totals = watched(tmp_path, range(0, 30, 10), scalars=scalars)
    history = read_run(tmp_path)
    assert (history.quantity, history.stage) == ("grad_norm", "applied")
    assert history.steps.tolist() == [0, 10, 20]
    assert history.layers == ("0", "1")
    assert history.parameters == ("0.weight", "1.weight")
    assert history.values.tolist() == [[1, 1], [11, 11], [21, 21]]
    assert history.available.all()
    np.testing.assert_allclose(history.total, totals, rtol=1e-6)
    assert history["1"].tolist() == [1, 11, 21]
    assert history["1.weight"].tolist() == [1, 11, 21]
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


def test_a_table_tells_a_missing_number_from_nan_too(tmp_path: Path) -> None:
    values = torch.tensor([[1.0, math.nan, math.nan]], dtype=torch.float64).T
    available = torch.tensor([[True, True, False]]).T
    write(
        tmp_path,
        Snapshot(0, "raw", (TOTAL, A, B), ("grad_norm",), values, available),
    )
    history = read_run(tmp_path)
    np.testing.assert_array_equal(history.values, [[math.nan, math.nan]])
    assert history.available.tolist() == [[True, False]]


def test_what_float32_cannot_hold_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, ones(0, TOTAL, A, norm=1e-60), ones(1, TOTAL, A))
    assert read_run(tmp_path)["a"].tolist() == [1e-60, 1.0]


def test_a_run_that_a_logger_wrote_has_its_parameters(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for name in ("total", "a", "root", "a/weight", "root/bias"):
            writer.add_scalar(f"grad_norm/{name}", 1.0, 0)
    history = read_run(tmp_path)
    assert (history.layers, history.parameters) == (("a", "root"), ("a.weight", "bias"))


def test_scalars_fill_the_steps_that_have_no_table(tmp_path: Path) -> None:
    """A run begun by a logger, or by an older gradlab, and resumed."""
    with SummaryWriter(tmp_path) as writer:
        for step in range(4):
            writer.add_scalar("grad_norm/a", 10.0 + step, step)
    write(tmp_path, *(ones(step, TOTAL, A) for step in range(2, 6)))
    history = read_run(tmp_path)
    assert history["a"].tolist() == [10, 11, 1, 1, 1, 1]
    assert history.stage == "applied"


def test_each_stage_is_a_history_of_its_own(tmp_path: Path) -> None:
    for scalars in ("all", "off"):
        folder = tmp_path / scalars
        with EventFileWriter(folder, scalars=scalars) as sink:
            for step in range(2):
                for stage, norm in (("unscaled", 4.0), ("clipped", 1.0)):
                    values = torch.full((2, 1), norm + step, dtype=torch.float64)
                    names = ("grad_norm",)
                    rows = (TOTAL, A)
                    sink(Snapshot(step, stage, rows, names, values, values > 0))
        assert quantities_in(folder) == {"grad_norm": ("unscaled", "clipped")}
        for stage, first in ((None, 4.0), ("unscaled", 4.0), ("clipped", 1.0)):
            history = read_run(folder, stage=stage)
            assert history.stage == (stage or "unscaled")
            assert history["a"].tolist() == [first, first + 1]
        with pytest.raises(
            ValueError, match=r"grad_norm \(unscaled, clipped\); got .* stage 'raw'"
        ):
            read_run(folder, stage="raw")


def test_the_scalars_alone_say_their_stages(tmp_path: Path) -> None:
    """As a gradlab without tables wrote them."""
    with EventFileWriter(tmp_path / "new") as sink:
        for stage in ("unscaled", "clipped"):
            one = ones(0, TOTAL, A)
            sink(dataclasses.replace(one, stage=stage))
    (new,) = (tmp_path / "new").iterdir()
    with SummaryWriter(tmp_path / "old") as writer:
        for data in records(new):
            event = event_pb2.Event.FromString(data)
            for value in event.summary.value:
                if not value.tag.startswith("gradlab/"):
                    summary = summary_pb2.Summary(value=[value])
                    writer._get_file_writer().add_summary(summary, event.step)
    assert quantities_in(tmp_path / "old") == {"grad_norm": ("unscaled", "clipped")}
    for stage in ("unscaled", "clipped"):
        history = read_run(tmp_path / "old", stage=stage)
        assert (history.stage, history.layers) == (stage, ("a",))


def test_several_optimizers_have_a_total_each(tmp_path: Path) -> None:
    first, second = Row("total/0", "total"), Row("total/1", "total")
    write(
        tmp_path,
        ones(0, first, A),
        ones(1, second, B, norm=2.0),
        # They may share a step, too.
        ones(2, first, A),
        ones(2, second, B, norm=2.0),
    )
    history = read_run(tmp_path)
    assert history.layers == ("a", "b")
    assert history.available.tolist() == [[True, False], [False, True], [True, True]]
    assert history.total.tolist() == [1, 2, 2]
    np.testing.assert_array_equal(history["total/0"], [1, math.nan, 1])


def test_a_layer_that_is_unfrozen_has_its_place_in_the_model(tmp_path: Path) -> None:
    parameter = Row("c.bias", "parameter")
    write(
        tmp_path,
        ones(0, TOTAL, C),
        ones(1, TOTAL, B, C),
        ones(2, TOTAL, A, B, C, parameter),
        parameters=True,
    )
    history = read_run(tmp_path)
    assert history.layers == ("a", "b", "c")
    assert history.available.sum(axis=1).tolist() == [1, 2, 3]
    assert [row.name for row in history.rows] == ["total", "a", "b", "c", "c.bias"]


def test_shapes_of_parameters_are_read_back(tmp_path: Path) -> None:
    sinks = [EventFileWriter(tmp_path, True)]
    with Monitor(nn.Linear(3, 2), quantities=[GradNorm()], sinks=sinks) as monitor:
        for parameter in monitor.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        given = monitor.observe(0, "raw").rows
    read = read_run(tmp_path).rows
    assert read == given
    assert [row.shape for row in read] == [row.shape for row in given]


def test_the_quantities_of_a_run_are_listed(tmp_path: Path) -> None:
    watched(tmp_path / "one", range(1))
    with SummaryWriter(tmp_path / "two") as writer:
        writer.add_scalar("grad_rms/a", 1.0, 0)
        writer.add_scalar("loss/train", 1.0, 0)
    assert quantities_in(tmp_path) == {"grad_norm": ("applied",), "grad_rms": (None,)}
    with pytest.raises(
        ValueError,
        match=r": grad_norm \(applied\), grad_rms \(None\); got quantity='grad_nrm'",
    ):
        read_run(tmp_path, "grad_nrm")


def test_a_run_is_read_from_the_top_of_the_package(tmp_path: Path) -> None:
    watched(tmp_path, range(1))
    assert isinstance(gradlab.read_run(tmp_path), gradlab.History)


def test_a_file_without_a_record_is_no_obstacle(tmp_path: Path) -> None:
    EventFileWriter(tmp_path).close()
    with pytest.raises(ValueError, match="some of its tags: none"):
        read_run(tmp_path)
    watched(tmp_path, range(1))
    assert read_run(tmp_path).steps.tolist() == [0]


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
