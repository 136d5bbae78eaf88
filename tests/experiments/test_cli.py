"""The command line: what it writes, and how it ends when the user makes a mistake."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import LightningDataModule, LightningModule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import Digits, vanishing
from experiments._cli import ExperimentCLI
from tests.experiments.fashion_mnist_files import write_fashion_mnist

ROOT = Path(__file__).parents[2]
RELU = ROOT / "configs" / "vanishing_relu.yaml"
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=3"]


def relu(*args: str) -> ExperimentCLI:
    return ExperimentCLI(["fit", "-c", str(RELU), *SHORT, *args])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end in status 2 and one line, and returns the line."""

    def run(*args: str) -> str:
        with pytest.raises(SystemExit) as end:
            ExperimentCLI([*args])
        assert end.value.code == 2
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        return line.removeprefix("error: ").rstrip()

    return run


def scalars(log_dir: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(log_dir), {"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_a_run_is_named_after_its_config_and_numbered(here: Path) -> None:
    for _ in range(2):
        relu()
    runs = sorted((here / "runs" / "vanishing_relu").iterdir())
    assert [run.name for run in runs] == ["version_0", "version_1"]
    for run in runs:
        assert len(list(run.glob("events.out.tfevents.*"))) == 1
        logged = scalars(run) | scalars(run / "gradlab")
        assert [step for step, _ in logged["grad_norm/total"]] == [0, 1, 2]
        metrics = {
            f"{m}/{split}" for m in ("loss", "accuracy") for split in ("train", "val")
        }
        assert metrics <= set(logged)


def test_the_saved_config_repeats_the_run(here: Path) -> None:
    relu("--model.depth=3", "--trainer.enable_progress_bar=false")
    runs = here / "runs" / "vanishing_relu"
    saved = runs / "version_0" / "config.yaml"
    model = yaml.safe_load(saved.read_text())["model"]
    assert model["class_path"] == "experiments.Classifier"
    assert model["init_args"]["activation"]["class_path"] == "gradlab.layers.ReLU"
    ExperimentCLI(["fit", "-c", str(saved)])
    first, again = scalars(runs / "version_0"), scalars(runs / "version_1")
    assert len(first["loss/train"]) == 3
    assert first == again


def test_a_second_config_is_laid_over_the_first(here: Path) -> None:
    Path("shallow.yaml").write_text("model: {init_args: {depth: 2}}")
    cli = relu("-c", "shallow.yaml")
    assert len(cli.model.layers) == 3
    assert (here / "runs" / "vanishing_relu+shallow" / "version_0").is_dir()


def test_a_logger_of_ones_own_is_kept(here: Path) -> None:
    relu("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=mine")
    assert [path.name for path in here.iterdir()] == ["mine"]


def test_parts_are_found_by_their_class_alone() -> None:
    parts = [
        "--data=Digits",
        "--data.batch_size=7",
        "--trainer.callbacks=GradientMonitor",
    ]
    cli = relu(*parts, "--trainer.fast_dev_run=true")
    assert isinstance(cli.datamodule, Digits)
    assert cli.datamodule.batch_size == 7


def test_validates(here: Path) -> None:
    ExperimentCLI(["validate", "-c", str(RELU)])
    assert (here / "runs" / "vanishing_relu" / "version_0" / "config.yaml").is_file()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        ExperimentCLI(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "\n    python -m experiments fit -c configs/vanishing_relu.yaml\n" in text
    assert "python -m experiments.vanishing --help" in text


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--model.depht=3"], "'depht' is not an option .* Did you mean 'depth'"),
        (["--trainer.max_epohs=3"], "Did you mean 'trainer.max_epochs'"),
        (["--model.activation=torch.nn.RelU"], "Did you mean 'torch.nn.ReLU'"),
        (["--model.depth=0"], "depth must be at least 1, got 0"),
        (["--model.depth=many"], "model.depth: Expected a int"),
        (["--model.optimizer.lr=-1"], "lr must be .* got -1"),
        (["--model.in_features=3"], "in_features must be 64 for Digits, got 3: set"),
        (["--model.out_features=3"], "out_features must be 10 for Digits, got 3: set"),
        (["--data.batch_size=9999"], "batch_size must be at most .* 1438, got 9999"),
        (["--data=FashionMNIST", "--data.root=absent"], "apt-get .* --data.root=DIR"),
        (["--num_threads=0"], "num_threads: .* got 0"),
        (["--trainer.accelerator=gpux"], "invalid accelerator name.*Available names"),
        (["--trainer.logger=false"], "GradientMonitor writes to the trainer's loggers"),
    ],
)
def test_a_mistake_ends_in_one_line_and_writes_nothing(
    args: list[str], line: str, mistake: Callable[..., str], here: Path
) -> None:
    message = mistake("fit", "-c", str(RELU), *args)
    assert re.search(line, message), message
    assert list(here.iterdir()) == []


def test_a_misspelt_key_in_the_file(mistake: Callable[..., str]) -> None:
    Path("wrong.yaml").write_text(RELU.read_text().replace("depth:", "deepness:"))
    message = mistake("fit", "-c", "wrong.yaml")
    assert message.startswith("model: 'deepness' is not an option of experiments.Class")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "",
            "a config must be a mapping with the keys seed_everything, .* got nothing",
        ),
        ("- 3", "a config must be a mapping"),
        ("a: [", "Problems parsing config"),
        ("seed_everything: 0", "a model and data are required"),
        ("model: 3", "model: Not a valid subclass of LightningModule.* got 3"),
        ("modle: 3", "modle is not an option. Did you mean 'model'"),
    ],
)
def test_a_config_that_is_none(
    content: str, line: str, mistake: Callable[..., str]
) -> None:
    Path("wrong.yaml").write_text(content)
    message = mistake("fit", "-c", "wrong.yaml")
    assert re.search(line, message), message


def test_a_run_is_never_written_over(mistake: Callable[..., str], here: Path) -> None:
    relu()
    before = scalars(here / "runs" / "vanishing_relu" / "version_0")
    place = ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=runs"]
    place += ["--trainer.logger.name=vanishing_relu", "--trainer.logger.version=0"]
    message = mistake("fit", "-c", str(RELU), *place)
    assert "runs/vanishing_relu/version_0 holds a run already" in message
    assert scalars(here / "runs" / "vanishing_relu" / "version_0") == before


class Broken(LightningModule):
    """Stands for a bug of ours."""

    def __init__(self) -> None:
        super().__init__()
        raise KeyError("a bug")


class BrokenData(LightningDataModule):
    """The same, after the parts are built."""

    def prepare_data(self) -> None:
        raise ZeroDivisionError("a bug")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments._classifier.Broken", Broken, raising=False)
    monkeypatch.setattr("experiments._digits.BrokenData", BrokenData, raising=False)
    with pytest.raises(KeyError, match="a bug") as error:
        relu("--model=experiments._classifier.Broken")
    assert error.traceback[-1].name == "__init__"
    with pytest.raises(ZeroDivisionError):
        relu("--data=experiments._digits.BrokenData")


def test_debugging_shows_the_traceback_of_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "true")
    with pytest.raises(Exception, match="depth must be at least 1") as error:
        relu("--model.depth=0")
    assert isinstance(error.value.__cause__, ValueError)


def config(path: Path, old: str, new: str) -> str:
    path.write_text(RELU.read_text().replace(old, new))
    return str(path)


def test_mistakes_as_a_user_meets_them(here: Path) -> None:
    """A misspelt key, missing data, an unwritable log directory; real processes."""
    (here / "file").touch()
    work = here / "work"
    work.mkdir()
    commands = {
        "Did you mean 'depth'": ["-c", config(here / "a.yaml", "depth:", "depht:")],
        "apt-get install dataset-fashion-mnist": [
            *("-c", str(RELU), "--data=FashionMNIST", f"--data.root={here / 'none'}")
        ],
        "log directory must be writable": [
            *("-c", str(RELU), f"--trainer.default_root_dir={here / 'file'}")
        ],
    }
    started = {
        line: subprocess.Popen(
            [sys.executable, "-m", "experiments", "fit", *args],
            cwd=work,
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line, args in commands.items()
    }
    for line, process in started.items():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert line in err
    assert list(work.iterdir()) == []


def test_fashion_mnist_from_a_given_root(here: Path) -> None:
    root = write_fashion_mnist(here / "data")
    path = ROOT / "configs" / "vanishing_relu_fashion_mnist.yaml"
    cli = ExperimentCLI(["fit", "-c", str(path), *SHORT, f"--data.root={root}"])
    assert cli.trainer.global_step == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.activation=gradlab.layers.relu"], "function in place of the class"),
        (["--model.activation=gradlab.layers.Relu"], "Did you mean '.*layers.ReLU'"),
        (["--model.init=torch.nn.init.constant_"], "init must fill a weight"),
        (["--seed_everything=-1"], "must be from 0 to .* got -1"),
        (["--ckpt_path=/no/such.ckpt"], "ckpt_path must be a file"),
        ([f"--ckpt_path={RELU}"], "must be a checkpoint .* Lightning"),
        (["--trainer.val_check_interval=1000"], "val_check_interval"),
    ],
)
def test_more_mistakes_are_one_message_and_leave_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    with pytest.raises(SystemExit) as ended:
        ExperimentCLI(["fit", "-c", str(RELU), root, *options])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.search(message, said), said
    assert said.count("error:") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_checkpoint_of_another_depth_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"layers.linear9.weight": torch.zeros(2)}}, place)
    root = f"--trainer.default_root_dir={tmp_path / 'runs'}"
    with pytest.raises(SystemExit):
        ExperimentCLI(["fit", "-c", str(RELU), root, f"--ckpt_path={place}"])
    assert "differs in layers.linear" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_without_the_extras_a_command_says_what_to_install() -> None:
    code = (
        "import sys, runpy; sys.modules['jsonargparse'] = None\n"
        "runpy.run_module('experiments.vanishing', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert "pip install '.[experiments]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_study_keeps_its_own_log(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        vanishing.main(["--trainer.default_root_dir=elsewhere"])
    assert ended.value.code == 2
    assert "--out=DIR" in capsys.readouterr().err
