"""The study: what theory says of both networks, read back from the event files."""

import re
import shlex
from pathlib import Path

import pytest
from matplotlib.image import imread

from experiments import vanishing
from experiments._cli import ExperimentCLI
from gradlab.tensorboard import read_run
from tests.experiments.fashion_mnist_files import write_fashion_mnist

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("network", "at_least", "at_most"),
    [("vanishing_sigmoid", 0.0, 1e-3), ("vanishing_relu", 0.1, 10.0)],
)
def test_first_layer_over_last_layer_at_step_0(
    network: str, at_least: float, at_most: float, seed: int, tmp_path: Path
) -> None:
    ExperimentCLI(
        [
            *("fit", "-c", str(CONFIGS / f"{network}.yaml")),
            *(f"--seed_everything={seed}", f"--trainer.default_root_dir={tmp_path}"),
            *("--trainer.max_steps=2", "--trainer.limit_val_batches=0"),
        ]
    )
    history = read_run(tmp_path / network / "version_0")
    assert history.steps.tolist() == [0, 1]
    assert history.layers == tuple(f"layers.linear{k}" for k in range(1, 9))
    first, last = history.values[0][[0, -1]]
    assert at_least <= first / last <= at_most
    assert first > 0


def test_from_training_to_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    vanishing.main(["--epochs", "2"])
    text = capsys.readouterr().out
    out = tmp_path / "runs" / "vanishing" / "version_0"
    relu = read_run(out / "vanishing_relu")
    sigmoid = read_run(out / "vanishing_sigmoid")

    rows = re.findall(r"^  (\d)\D.*?((?: +\d\.\de[+-]\d\d){4})", text, re.MULTILINE)
    assert [row[0] for row in rows] == list("12345678")
    columns = (sigmoid.values[0], sigmoid.values[-1], relu.values[0], relu.values[-1])
    for k, (_, cells) in enumerate(rows):
        assert cells.split() == [f"{column[k]:.1e}" for column in columns]

    ratio = sigmoid.values[0, 0] / sigmoid.values[0, -1]
    assert (
        "With Sigmoid and N(0, 1/n) weights the gradient vanishes: the first layer's "
        f"norm is {ratio:.1e} of the last layer's at step 0, " in text
    )
    assert "With ReLU and He weights the gradient reaches the input: " in text
    assert "at step 43; the network ends at " in text
    assert "where guessing gives 10.0%." in text

    command = shlex.split(text.split("TensorBoard: ")[1])
    assert command[-2:] == ["--logdir", "runs/vanishing/version_0"]
    assert Path(command[0]).name == "tensorboard"
    assert (tmp_path / command[0]).is_file()

    height, width, _ = (pixels := imread(out / "gradient_norm_by_depth.png")).shape
    assert (width, height) == (1376, 800)
    colours = {tuple(c) for c in (pixels.reshape(-1, 4)[:, :3] * 255).astype(int)}
    assert {(213, 94, 0), (0, 114, 178)} <= colours
    assert "<svg" in (out / "gradient_norm_by_depth.svg").read_text()

    vanishing.main(["--epochs", "1", "--model.depth=2"])
    assert (out.with_name("version_1") / "gradient_norm_by_depth.png").is_file()


def test_fashion_mnist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_fashion_mnist(tmp_path / "data")
    out = tmp_path / "two words"
    vanishing.main(
        [
            *("--data", "fashion_mnist", f"--data.root={root}", "--epochs", "1"),
            *("--out", str(out), "--model.activation=torch.nn.Tanh"),
        ]
    )
    text = capsys.readouterr().out
    assert "With Tanh and He weights" in text
    command = shlex.split(text.split("TensorBoard: ")[1])
    assert command[-2:] == ["--logdir", str(out / "version_0")]
    names = {"vanishing_sigmoid_fashion_mnist", "vanishing_relu_fashion_mnist"}
    assert names < {path.name for path in (out / "version_0").iterdir()}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epochs", "0"], "--epochs: invalid"),
        (["--data", "digit"], "--data: invalid choice: 'digit'"),
        (["--model.depht=3"], "Did you mean 'depth'"),
        (["--data", "fashion_mnist", "--data.root=absent"], "--data.root=DIR"),
        (["--out", "file"], "log directory must be writable; file/version_0/.*--out"),
        (["--trainer.fast_dev_run=true"], "the study reads its own log"),
    ],
)
def test_a_mistake_leaves_nothing_behind(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as end:
        vanishing.main(args)
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        vanishing.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "python -m experiments.vanishing --data fashion_mnist" in text
