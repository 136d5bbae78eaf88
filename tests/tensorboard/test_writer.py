import errno
import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray
from torch import nn

from gradlab import Monitor, Row, Snapshot
from gradlab._snapshot import Stage
from gradlab.tensorboard import EventFileWriter, read_run
from gradlab.tensorboard._table import layout_of

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


def test_another_stage_has_tags_of_its_own(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path) as sink:
        for step in range(2):
            sink(snapshot(step, 4.0, 4.0, 4.0, stage="unscaled"))
            sink(snapshot(step, 1.0, 1.0, 1.0, stage="clipped"))
    events = read(tmp_path)
    for name, stage, norm in (
        ("grad_norm", "unscaled", 4.0),
        ("grad_norm_clipped", "clipped", 1.0),
    ):
        assert numbers(events, f"{name}/fc") == [(0, norm), (1, norm)]
        for tag in (f"{name}/fc", f"gradlab/{name}"):
            said = events.SummaryMetadata(tag).summary_description
            assert said == f"Gradient stage: {stage}"


def test_a_quantity_is_one_tensor_that_says_what_its_rows_are(tmp_path: Path) -> None:
    rows = (Row("total", "total"), Row("fc", "layer"))
    values = torch.tensor([[3.0, 0.5], [2.0, 0.25]], dtype=torch.float64)
    with EventFileWriter(tmp_path, scalars="off") as sink:
        for step in range(2):
            names = ("grad_norm", "grad_rms")
            sink(Snapshot(step, "applied", rows, names, values + step, values > 0))
    events = read(tmp_path)
    assert events.Tags()["scalars"] == []
    assert events.Tags()["tensors"] == ["gradlab/grad_norm", "gradlab/grad_rms"]
    metadata = events.SummaryMetadata("gradlab/grad_rms")
    layout = layout_of(metadata)
    assert layout is not None
    assert (layout.quantity, layout.stage, layout.rows) == ("grad_rms", "applied", rows)
    got = [make_ndarray(e.tensor_proto) for e in events.Tensors("gradlab/grad_rms")]
    np.testing.assert_array_equal(got, [[0.5, 0.25], [1.5, 1.25]])
    assert got[0].dtype == np.float32


def test_the_parameters_are_in_the_tensor_if_asked(tmp_path: Path) -> None:
    for parameters in (False, True):
        folder = tmp_path / str(parameters)
        with EventFileWriter(folder, parameters, scalars="off") as sink:
            sink(snapshot(0, 1.5, 2.5, 3.5))
        layout = layout_of(read(folder).SummaryMetadata("gradlab/grad_norm"))
        assert layout is not None
        assert layout.rows == (ROWS if parameters else ROWS[:2])


def test_other_rows_are_another_tensor_described_once(tmp_path: Path) -> None:
    """TensorBoard remembers the first metadata of a tag only."""

    def of(step: int, *rows: Row) -> Snapshot:
        values = torch.ones(len(rows), 1, dtype=torch.float64)
        return Snapshot(step, "applied", rows, ("grad_norm",), values, values > 0)

    a, b = Row("a", "layer"), Row("b", "layer")
    with EventFileWriter(tmp_path, scalars="off") as sink:
        for step in range(0, 8, 4):
            sink(of(step, Row("total/0", "total"), a))
            sink(of(step + 1, Row("total/1", "total"), b))
            sink(of(step + 2, Row("total", "total"), a))
            sink(of(step + 3, Row("total", "total"), a, b))
    events = read(tmp_path)
    steps = {
        tag: [event.step for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert steps == {
        "gradlab/grad_norm/0": [0, 4],
        "gradlab/grad_norm/1": [1, 5],
        "gradlab/grad_norm": [2, 6],
        "gradlab/grad_norm~2": [3, 7],
    }
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().count(b'"version"') == 4


def test_top_scalars_are_the_total_and_what_moved_most(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path, True, scalars="top", top_k=1) as sink:
        sink(snapshot(0, 1.0, 1.0, 1.0))
        sink(snapshot(1, 1.0, 1.1, 9.0))
        sink(snapshot(2, 1.0, 1.1, 9.0))
    events = read(tmp_path)
    steps = {
        tag: [step for step, _ in numbers(events, tag)]
        for tag in events.Tags()["scalars"]
    }
    assert steps == {
        "grad_norm/total": [0, 1, 2],
        "grad_norm/fc": [0, 2],
        "grad_norm/fc/bias": [0, 1],
    }
    # The tensor has all of them.
    assert len(events.Tensors("gradlab/grad_norm")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scalars": "some"}, r"one of \('all', 'top', 'off'\), got scalars='some'"),
        ({"top_k": 0}, "from 1, got top_k=0"),
        ({"top_k": 2.5}, "from 1, got top_k=2.5"),
    ],
)
def test_wrong_options_are_refused_before_a_file_is_made(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EventFileWriter(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_layer_costs_five_bytes_at_most(tmp_path: Path) -> None:
    rows = (
        Row("total", "total"),
        *(Row(f"encoder.blocks.{i}.linear", "layer") for i in range(150)),
    )
    names = ("grad_norm", "grad_rms")
    values = torch.rand(151, 2, dtype=torch.float64)
    with EventFileWriter(tmp_path, scalars="off") as sink:
        sizes = []
        for step in range(1000, 1101):
            sink(Snapshot(step, "applied", rows, names, values, values >= 0))
            (file,) = tmp_path.iterdir()
            sizes.append(file.stat().st_size)
    assert (sizes[-1] - sizes[0]) / 100 <= 5 * 150 * len(names)


def test_a_step_is_one_event(tmp_path: Path) -> None:
    with EventFileWriter(tmp_path, parameters=True) as sink:
        for step in range(3):
            sink(snapshot(step, 1.0, 2.0, 3.0))
    (file,) = tmp_path.iterdir()
    events = [e for e in EventFileLoader(str(file)).Load() if e.HasField("summary")]
    assert [len(event.summary.value) for event in events] == [4, 4, 4]


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


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    """The process dies in the middle of writing; it never flushed or closed."""
    writing = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("endless_run.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writing.stdout is not None
    for line in writing.stdout:
        if int(line) >= 50:
            break
    writing.kill()
    rest = writing.stdout.read().split("\n")
    writing.stdout.close()
    writing.wait()
    # The last line may be cut off.
    done = max(int(line) for line in ["50", *rest[:-1]] if line)
    history = read_run(tmp_path)
    assert history.steps.tolist()[: done + 1] == list(range(done + 1))
    np.testing.assert_array_equal(history["0"], history.steps + 1)


def watch_on_a_full_disk(folder: Path, steps: int) -> Monitor:
    model = nn.Linear(2, 1)
    model.weight.grad = torch.ones(1, 2)
    monitor = Monitor(model, sinks=[EventFileWriter(folder)])

    def run() -> None:
        with monitor:
            for step in range(steps):
                monitor.observe(step, "raw")

    with pytest.warns(RuntimeWarning, match="Training goes on") as caught:
        run()
    assert len(caught) == 1
    return monitor


@pytest.fixture
def full_disk() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_training_goes_on_when_the_disk_is_full(
    tmp_path: Path, full_disk: None
) -> None:
    monitor = watch_on_a_full_disk(tmp_path, 300)
    assert 0 < monitor.lost < 300
    # Each loss is counted, and all else can be read.
    assert read_run(tmp_path).steps.tolist() == list(range(300 - monitor.lost))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a disk is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_has_room_again_takes_what_comes_then(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 16))
    with EventFileWriter(small_disk / "run") as sink:
        lost = []
        for step in range(300):
            if step == 100:
                ballast.unlink()
            try:
                sink(snapshot(step, 1.0, 2.0, 3.0))
            except OSError as error:
                lost.append((step, error.errno))
    assert lost == [(step, errno.ENOSPC) for step in range(100)]
    history = read_run(small_disk)
    assert history.steps.tolist() == list(range(100, 300))
    assert history.stage == "applied"


def test_a_disk_that_fills_up_keeps_what_it_took(small_disk: Path) -> None:
    monitor = watch_on_a_full_disk(small_disk, 2000)
    assert 0 < monitor.lost < 2000
    assert read_run(small_disk).steps.tolist() == list(range(2000 - monitor.lost))
