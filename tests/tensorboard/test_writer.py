import math
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

from gradlab import Monitor, Row, Snapshot
from gradlab._snapshot import Stage
from gradlab.tensorboard import EventFileWriter

ROWS = (Row("total", "total"), Row("fc", "layer"), Row("fc.bias", "parameter"))


def snapshot(step: int, *norms: float, stage: Stage = "applied") -> Snapshot:
    values = torch.tensor(norms, dtype=torch.float64).reshape(3, 1)
    return Snapshot(step, stage, ROWS, ("grad_norm",), values, ~values.isneginf())


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def numbers(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_layers_and_the_total_are_scalars(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path / "run") as sink:
        sink(snapshot(0, 1.5, 2.5, 3.5))
        sink(snapshot(7, 4.5, 5.5, 6.5))
    events = read(tmp_path / "run")
    assert events.Tags()["scalars"] == ["grad_norm/total", "grad_norm/fc"]
    assert numbers(events, "grad_norm/total") == [(0, 1.5), (7, 4.5)]
    assert numbers(events, "grad_norm/fc") == [(0, 2.5), (7, 5.5)]


def test_parameters_are_scalars_if_asked(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path, parameters=True) as sink:
        sink(snapshot(0, 1.5, 2.5, 3.5))
    assert numbers(read(tmp_path), "grad_norm/fc/bias") == [(0, 3.5)]


def test_every_tag_says_its_stage(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path) as sink:
        sink(snapshot(0, 1.0, 1.0, 1.0, stage="clipped"))
    metadata = read(tmp_path).SummaryMetadata("grad_norm/fc")
    assert metadata.summary_description == "Gradient stage: clipped"
    assert metadata.plugin_data.plugin_name == "scalars"


def test_two_stages_do_not_share_a_curve(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path) as sink:
        sink(snapshot(0, 1.0, 1.0, 1.0))
        with pytest.raises(ValueError, match=r"here 'applied', got .* 'unscaled'"):
            sink(snapshot(0, 1.0, 1.0, 1.0, stage="unscaled"))


def test_a_step_is_one_event(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path, parameters=True) as sink:
        for step in range(3):
            sink(snapshot(step, 1.0, 2.0, 3.0))
    (file,) = tmp_path.iterdir()
    events = [e for e in EventFileLoader(str(file)).Load() if e.HasField("summary")]
    assert [len(event.summary.value) for event in events] == [3, 3, 3]


def test_nan_is_written_and_what_is_unavailable_is_not(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path) as sink:
        sink(snapshot(0, math.nan, -math.inf, 1.0))
        sink(snapshot(1, -math.inf, -math.inf, -math.inf))
    events = read(tmp_path)
    assert events.Tags()["scalars"] == ["grad_norm/total"]
    ((step, number),) = numbers(events, "grad_norm/total")
    assert step == 0
    assert math.isnan(number)


def test_flush_shows_what_was_written(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path) as sink:
        sink(snapshot(0, 1.0, 2.0, 3.0))
        sink.flush()
        assert numbers(read(tmp_path), "grad_norm/fc") == [(0, 2.0)]


def test_a_log_dir_below_a_file_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(
        OSError, match=r"can be made .* choose another log_dir"
    ) as caught:
        EventFileWriter(file / "run" / "one")
    assert str(file / "run" / "one") in str(caught.value)
    assert isinstance(caught.value, NotADirectoryError)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "kept"


@pytest.fixture
def full_disk() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# TensorBoard's writer raises in its thread before it raises in the caller's.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_training_goes_on_when_the_disk_is_full(
    tmp_path: Path, full_disk: None
) -> None:
    model = nn.Linear(2, 1)
    model.weight.grad = torch.ones(1, 2)
    monitor = Monitor(model, sinks=[EventFileWriter(tmp_path)])

    def run() -> None:
        with monitor:
            for step in range(300):
                monitor.observe(step, "raw")

    with pytest.warns(RuntimeWarning, match="Training goes on") as caught:
        run()
    assert len(caught) == 1
    assert 0 < monitor.lost < 300
