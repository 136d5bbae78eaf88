"""The vanishing gradient: eight sigmoid layers against eight ReLU layers.

The same network is trained twice: with sigmoids and N(0, 1/n) weights, whose gradient
shrinks at every layer by σ' ≤ 1/4 (Hochreiter, 1991; Glorot and Bengio, 2010), and with
ReLU and the initialisation that keeps its variance (He et al., 2015).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gradlab.tensorboard import read_run

from ._depth_profile import DepthProfile
from ._depth_report import sentence, table, title
from ._extras import needs_extras
from ._tensorboard_command import tensorboard_command

with needs_extras():
    from ._cli import ExperimentCLI, Positive
    from ._depth_picture import draw_depth

_CONFIGS = Path(__file__).parents[1] / "configs"
_NETWORKS = ("vanishing_sigmoid", "vanishing_relu")
_FIXED = tuple(
    f"--trainer.{key}"
    for key in ("default_root_dir", "logger", "callbacks", "fast_dev")
)
_HELP = """\
Trains an 8-layer network twice, with sigmoids and N(0, 1/n) weights and with ReLU and
He initialisation, and shows how much of the gradient reaches each layer.

    python -m experiments.vanishing
    python -m experiments.vanishing --data fashion_mnist
    python -m experiments.vanishing --epochs 5 --model.depth=16
"""
_MORE = """\
Any other option goes to both trainings: see `python -m experiments fit --help`. They
are described by configs/vanishing_sigmoid*.yaml and configs/vanishing_relu*.yaml.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Trains both networks, then prints and draws what they logged.

    Args:
        args: the command line; None stands for the process's own.
    """
    parser = _parser()
    options, others = parser.parse_known_args(args)
    if options.epochs is not None:
        others.append(f"--trainer.max_epochs={options.epochs}")
    suffix = "" if options.data == "digits" else f"_{options.data}"
    for option in others:
        if option.startswith(_FIXED):
            parser.exit(
                2,
                "error: the study reads its own log, written by its own callback; got "
                f"{option}. Use --out=DIR, or python -m experiments fit\n",
            )
    out = _next_version(options.out)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    runs: list[ExperimentCLI] = []
    for network in _NETWORKS:
        config = _CONFIGS / f"{network}{suffix}.yaml"
        console.print(f"Training {config.stem}", style="bold")
        where = f"--trainer.default_root_dir={out}"
        runs.append(ExperimentCLI(["fit", "-c", str(config), *others, where]))
    try:
        profiles = [_profile(run) for run in runs]
    except (FileNotFoundError, ValueError) as error:  # an option turned logging off
        parser.exit(2, f"error: {error}\n")
    picture = out / "gradient_norm_by_depth"
    draw_depth(profiles, picture)
    console.print(table(profiles))
    console.print(f"\n{title(profiles)}.", style="bold")
    console.print(f"{sentence(profiles)}\n")
    console.print(f"Picture:     {picture}.png")
    console.print(f"TensorBoard: {tensorboard_command(out)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m experiments.vanishing",
        usage="%(prog)s [--data NAME] [--epochs N] [--out DIR] [--KEY=VALUE ...]",
        description=_HELP,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data",
        choices=("digits", "fashion_mnist"),
        default="digits",
        help="what to train on (default: %(default)s, which needs no file)",
    )
    parser.add_argument(
        "--epochs", type=Positive, metavar="N", help="epochs of each training"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/vanishing"),
        metavar="DIR",
        help="where version_0, version_1, ... go, one a study (default: %(default)s)",
    )
    return parser


def _next_version(out: Path) -> Path:
    taken = (path.name.removeprefix("version_") for path in out.glob("version_*"))
    numbers = (int(number) for number in taken if number.isdecimal())
    return out / f"version_{max(numbers, default=-1) + 1}"


def _profile(run: ExperimentCLI) -> DepthProfile:
    """Reads the run back from its event files."""
    history = read_run(str(run.trainer.log_dir))
    parts = run.config.fit.model.init_args
    accuracy = run.trainer.callback_metrics.get("accuracy/val")
    return DepthProfile(
        activation=_name(parts.activation),
        initialisation=_name(parts.init),
        start=history.values[0],
        end=history.values[-1],
        first_step=int(history.steps[0]),
        last_step=int(history.steps[-1]),
        accuracy=None if accuracy is None else accuracy.item(),
        chance=1 / parts.out_features,
    )


def _name(part: Any) -> str:
    """The name of a built part, or of a function, without its package."""
    path = getattr(part, "class_path", getattr(part, "__name__", str(part)))
    short = path.rpartition(".")[2]
    return {"lecun_normal_": "N(0, 1/n)", "kaiming_normal_": "He"}.get(short, short)


if __name__ == "__main__":
    main()
