"""Every config runs, is named after a study, and differs only where it says it does."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments._cli import ExperimentCLI
from tests.experiments.fashion_mnist_files import write_fashion_mnist

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def fashion_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion_mnist(tmp_path_factory.mktemp("fashion-mnist"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_runs(
    path: Path, fashion_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["fit", "-c", str(path), "--trainer.fast_dev_run=true"]
    if "FashionMNIST" in path.read_text():
        args.append(f"--data.root={fashion_mnist}")
    trainer = ExperimentCLI(args).trainer
    assert trainer.global_step == 1
    assert 0 <= trainer.callback_metrics["accuracy/val"] <= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_named_after_its_study_and_data(path: Path) -> None:
    study, *_ = path.stem.split("_")
    assert find_spec(f"experiments.{study}")
    data = read(path)["data"]["class_path"].removeprefix("experiments.")
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", data).lower()
    assert path.stem.endswith(f"_{snake}") == (data != "Digits")


@pytest.mark.parametrize("suffix", ["", "_fashion_mnist"])
def test_both_networks_differ_in_activation_and_initialisation_only(
    suffix: str,
) -> None:
    parent = CONFIGS[0].parent
    sigmoid, relu = (
        read(parent / f"vanishing_{name}{suffix}.yaml") for name in ("sigmoid", "relu")
    )
    for config in (sigmoid, relu):
        del config["model"]["init_args"]["activation"]
        del config["model"]["init_args"]["init"]
    assert sigmoid == relu
