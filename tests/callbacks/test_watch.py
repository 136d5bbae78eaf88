"""What is the same for every callback."""

import inspect
import json
import subprocess
import sys

import pytest

from gradlab import Monitor
from gradlab.callbacks._watch import Watch


def test_the_options_are_those_of_the_monitor() -> None:
    of_the_run = {"model", "optimizer", "scaler", "clock"}
    monitor = inspect.signature(Monitor).parameters
    watch = inspect.signature(Watch).parameters
    assert set(monitor) - of_the_run == set(watch) - {"parameters", "scalars"}
    for name in set(monitor) - of_the_run:
        assert watch[name].default == monitor[name].default
        assert watch[name].annotation == monitor[name].annotation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "at least 1, got 0"),
        ({"start": 5, "end": 5}, "no step between start=5 and end=5"),
    ],
)
def test_a_schedule_without_a_step_is_refused_at_once(
    options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Watch(**options)


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_one_trainer_is_watched_without_the_other() -> None:
    code = """
import json, sys
from gradlab import callbacks
trainers = {"pytorch_lightning", "transformers"}
first = sorted(trainers & set(sys.modules))
sys.modules["transformers"] = None
try:
    callbacks.HuggingFaceMonitor
except ImportError as error:
    said = str(error)
second = "pytorch_lightning" in sys.modules
print(json.dumps([first, said, second, dir(callbacks)]))
"""
    first, said, second, names = json.loads(python(code))
    assert first == []
    assert "pip install 'torch-gradlab[huggingface]'" in said
    assert not second
    assert {"GradientMonitor", "HuggingFaceMonitor"} < set(names)


def test_a_name_that_there_is_not() -> None:
    from gradlab import callbacks

    with pytest.raises(AttributeError, match="no attribute 'GradientMonitr'"):
        callbacks.GradientMonitr  # noqa: B018
