"""A tiny run of transformers.Trainer; as a script, one of two ranks.

The tests make their runs with it, and one of them starts it as a script.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch import nn

from gradlab.callbacks import HuggingFaceMonitor


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2
    )
    config.update({"bos_token_id": 0, "eos_token_id": 0})
    return transformers.GPT2LMHeadModel(config)


class Norms(transformers.TrainerCallback):
    """Keeps the norm that the Trainer itself takes before it clips."""

    def __init__(self) -> None:
        self.kept: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "grad_norm" in kwargs["logs"]:
            self.kept.append(float(kwargs["logs"]["grad_norm"]))


def trainer(
    folder: Path, *callbacks: Any, model: nn.Module | None = None, **options: Any
) -> Any:
    tokens = torch.randint(16, (22, 8), generator=torch.Generator().manual_seed(1))
    return transformers.Trainer(
        gpt2() if model is None else model,
        transformers.TrainingArguments(
            str(folder),
            **{
                "use_cpu": True,
                "max_steps": 5,
                "per_device_train_batch_size": 2,
                "max_grad_norm": 0.5,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                **options,
            },
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        callbacks=[*callbacks],
    )


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    norms = Norms()
    run = trainer(folder, norms, HuggingFaceMonitor(), ddp_backend="gloo", max_steps=3)
    run.train()
    if run.is_world_process_zero():
        (folder / "norms.json").write_text(json.dumps(norms.kept))
    dist.barrier()
    # gloo's threads now and then abort the interpreter while it shuts down.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
