"""Run an experiment: `python -m experiments fit -c configs/<study>.yaml`."""

from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

from ._extras import needs_extras
from ._tensorboard_command import tensorboard_command

with needs_extras():
    from ._cli import ExperimentCLI


def main() -> None:
    """Runs the command line, and ends with how to look at the run."""
    trainer = ExperimentCLI().trainer
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, TensorBoardLogger):
            print(f"TensorBoard: {tensorboard_command(Path(logger.log_dir))}")


if __name__ == "__main__":
    main()
