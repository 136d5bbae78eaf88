"""The command line of the experiments: LightningCLI, made plain about mistakes.

The parts are imported so that a config may name them by their class alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from jsonargparse import DefaultHelpFormatter, Namespace
from jsonargparse.typing import PositiveInt
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from gradlab.callbacks import GradientMonitor as GradientMonitor

from . import Classifier as Classifier, Digits as Digits, FashionMNIST as FashionMNIST
from ._claim_log_dir import claim_log_dir
from ._explain import explain
from ._quiet_lightning import quiet_lightning

Positive: Any = PositiveInt
"""Made at run time, and so no type to a type checker."""

_HELP = """\
Trains the network of a config and logs the gradient of every layer.

    python -m experiments fit -c configs/vanishing_relu.yaml
    python -m experiments fit -c configs/vanishing_relu.yaml --model.depth=16
    python -m experiments fit -c configs/vanishing_relu.yaml --print_config

Any key of a config is an option too, and a second -c lays its keys over the first.
Runs go to runs/<config>/version_<N>, with the config that repeats them. The studies,
which compare runs, are commands of their own: python -m experiments.vanishing --help
"""
_TROUBLE = "Set JSONARGPARSE_DEBUG=true to see the traceback behind an error message."


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description."""


class Parser(LightningArgumentParser):
    """Ends a mistake in one sentence on stderr and status 2, without a usage page."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explains `message` and exits; JSONARGPARSE_DEBUG=true shows a traceback."""
        if not self.exit_on_error or "JSONARGPARSE_DEBUG" in os.environ:
            super().error(message, ex)
        self.exit(2, f"error: {explain(message)}\n")


class ExperimentCLI(LightningCLI):
    """Builds the model, the data and the trainer that a config names, and runs them.

    What is wrong with the config, the data or the log directory is said before the run
    writes anything. Without a logger in the config, the run goes to TensorBoard files
    in `<trainer.default_root_dir>/<config stem>/version_<N>`, with the next free N;
    the default root is `runs`.

    Args:
        args: the command line; None stands for the process's own.
    """

    def __init__(self, args: ArgsType = None) -> None:
        self._failure: Exception | None = None
        self._claimed: list[Path] = []
        usage = "python -m experiments {} -c CONFIG [--KEY=VALUE ...]"
        with quiet_lightning():
            super().__init__(
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                parser_class=Parser,
                parser_kwargs={
                    "prog": "python -m experiments",
                    "description": _HELP,
                    "epilog": _TROUBLE,
                    "formatter_class": _Formatter,
                    "fit": {"usage": usage.format("fit")},
                    "validate": {"usage": usage.format("validate")},
                },
                trainer_defaults={"default_root_dir": "runs"},
                args=args,
            )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands that the models here answer to."""
        known = LightningCLI.subcommands()
        return {name: known[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds `num_threads`, on which the last bit of a sum depends."""
        parser.add_argument(
            "--num_threads",
            type=Positive | None,
            default=None,
            help="Threads of one operation on the CPU; null leaves torch's choice.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses `args`; a study calls this class while it has arguments of its own."""
        try:
            self.config = parser.parse_args(cast("list[str] | None", args))
        except UnicodeDecodeError as error:
            parser.error(f"a config must be a YAML file of text: {error}", error)
        seed = self.config[self.config.subcommand].seed_everything
        if type(seed) is int and not 0 <= seed < 2**32:
            parser.error(f"seed_everything must be from 0 to 2**32 - 1, got {seed}")
        try:
            self._weights = self._read_checkpoint()
        except (ValueError, OSError) as error:
            parser.error(str(error), error)

    def before_instantiate_classes(self) -> None:
        """Names the run after its config, and keeps an eye on every construction."""
        config = self.config[self.config.subcommand]
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        if config.trainer.logger in (None, True):
            stems = [Path(str(path)).stem for path in config.config or ()]
            logger = {"save_dir": config.trainer.default_root_dir}
            logger["name"] = "+".join(stems) or "unnamed"
            config.trainer.logger = Namespace(
                class_path="pytorch_lightning.loggers.TensorBoardLogger",
                init_args=Namespace(logger),
            )
        self.parser.add_instantiator(self._construct, object, subclasses=True)

    def instantiate_classes(self) -> None:
        """Builds the parts; a value that one of them refuses is the user's mistake."""
        with self._mistakes(
            ValueError, OSError, RuntimeError, MisconfigurationException
        ):
            failure = None
            try:
                super().instantiate_classes()
            except ValueError as error:
                failure = self._failure or error
            if failure is not None:
                raise failure

    def before_fit(self) -> None:
        """Checks data, sizes and log directory, before the run writes anything."""
        with self._mistakes(ValueError, OSError):
            self._check_weights()
            if self.datamodule is not None:
                self.datamodule.prepare_data()
                self.datamodule.setup("fit")
                self._check_sizes()
            for logger in self.trainer.loggers if self.trainer.is_global_zero else ():
                place = getattr(logger, "log_dir", None) or logger.save_dir
                if place is not None:
                    claim_log_dir(Path(place))
                    self._claimed.append(Path(place))

    before_validate = before_fit

    def fit(self, **parts: Any) -> None:
        """Trains; what Lightning itself refuses is the user's mistake too."""
        try:
            self.trainer.fit(**parts)
        except (
            *(MisconfigurationException, ValueError),
            *(RuntimeError, ImportError, OSError),
        ) as error:
            refused = isinstance(error, MisconfigurationException)
            if not refused and not _raised_by_lightning(error):
                raise
            if not self.trainer.global_step:
                self._leave_nothing()
            self.parser.error(str(error), error)

    def _construct(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Remembers why a construction failed, where jsonargparse forgets it."""
        try:
            return class_type(*args, **kwargs)
        except Exception as failure:
            self._failure = failure
            raise

    @contextmanager
    def _mistakes(self, *kinds: type[Exception]) -> Iterator[None]:
        try:
            yield
        except kinds as error:
            self.parser.error(str(error), error)

    def _leave_nothing(self) -> None:
        """Removes the log directories of a run that has not taken a step."""
        for logger in self.trainer.loggers:
            logger.finalize("failed")
        for place in self._claimed:
            shutil.rmtree(place, ignore_errors=True)

    def _read_checkpoint(self) -> dict[str, Any]:
        """The weights to resume from; none where the config names no file."""
        place = self.config[self.config.subcommand].get("ckpt_path")
        if place is None or place in ("best", "last", "hpc", "registry"):
            return {}
        if not Path(place).is_file():
            raise FileNotFoundError(f"ckpt_path must be a file, there is no {place}.")
        try:
            saved = torch.load(place, map_location="cpu", weights_only=True)
            return saved["state_dict"]
        except Exception as error:
            raise ValueError(
                f"ckpt_path must be a checkpoint that a Lightning run saved; {place} "
                f"is not: {type(error).__name__}."
            ) from error

    def _check_weights(self) -> None:
        """Holds the weights to resume from against the model's."""
        got = {name: tuple(value.shape) for name, value in self._weights.items()}
        wanted = {n: tuple(value.shape) for n, value in self.model.state_dict().items()}
        if got and got != wanted:
            differ = sorted(n for n in got | wanted if got.get(n) != wanted.get(n))
            raise ValueError(
                "ckpt_path must hold the weights of this model; it differs in "
                f"{', '.join(differ[:4])}. Were depth, width or sizes others then?"
            )

    def _check_sizes(self) -> None:
        data = type(self.datamodule).__name__
        for size in ("in_features", "out_features"):
            wanted = getattr(self.datamodule, size, None)
            got = getattr(self.model, size, None)
            if wanted is not None and got is not None and wanted != got:
                raise ValueError(
                    f"model.{size} must be {wanted} for {data}, got {got}: "
                    f"set --model.{size}={wanted}."
                )


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether the line that raised is Lightning's: a refusal, rather than a bug."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    return module.split(".")[0] in ("pytorch_lightning", "lightning_fabric")
