"""Real runs of transformers.Trainer, on a GPT-2 of two blocks that is made here."""

import copy
import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlab.monitor import Stop
from gradlab.quantities import (
    GradNorm,
    OutputGradRMS,
    UpdateRatio,
)
from gradlab.tensorboard import quantities_in, read_run

# Nothing is to be looked up on a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from gradlab.callbacks import HuggingFaceMonitor  # noqa: E402

from .hugging_face_run import Norms, gpt2, trainer  # noqa: E402

LAYER = "transformer.h.0.attn.c_attn"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bf16": True},
        # 11 batches an epoch: windows of 4, 4 and 3.
        {"gradient_accumulation_steps": 4},
        {"optim": "sgd"},
    ],
    ids=str,
)
def test_before_and_after_clipping_in_every_setting(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    both_are_read(tmp_path, gpt2(), **options)


@pytest.mark.parametrize("reentrant", [False, True])
def test_before_and_after_clipping_with_checkpointing(
    tmp_path: Path, reentrant: bool
) -> None:
    model: Any = gpt2()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    both_are_read(tmp_path, model)


def both_are_read(folder: Path, model: nn.Module, **options: Any) -> None:
    norms = Norms()
    trainer(folder, norms, HuggingFaceMonitor(), model=model, **options).train()
    before = read_run(folder, "grad_norm", "unscaled")
    after = read_run(folder, "grad_norm", "applied")
    coefficient = read_run(folder, "clip_coefficient")
    assert before.steps.tolist() == after.steps.tolist() == [0, 1, 2, 3, 4]
    assert LAYER in before.layers
    np.testing.assert_allclose(before.total, norms.kept, rtol=1e-6)
    np.testing.assert_allclose(after.total, 0.5, rtol=1e-4)
    np.testing.assert_allclose(coefficient.total, 0.5 / before.total, rtol=1e-4)
    ratio = after[LAYER] / before[LAYER]
    np.testing.assert_allclose(ratio, coefficient.total, rtol=1e-5)


def test_without_clipping_the_gradient_is_read_once(tmp_path: Path) -> None:
    norms = Norms()
    trainer(tmp_path, norms, HuggingFaceMonitor(), max_grad_norm=0.0).train()
    assert quantities_in(tmp_path)["grad_norm"] == ("applied",)
    assert "clip_coefficient" not in quantities_in(tmp_path)
    np.testing.assert_allclose(read_run(tmp_path).total, norms.kept, rtol=1e-6)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_the_loss_scale_is_divided_out(tmp_path: Path, optim: str) -> None:
    norms = Norms()
    run = trainer(tmp_path, norms, HuggingFaceMonitor(), fp16=True, optim=optim)
    # accelerate scales no loss on a CPU by itself.
    run.accelerator.native_amp = True
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run.train()
    before = read_run(tmp_path, "grad_norm", "unscaled").total
    np.testing.assert_allclose(before, norms.kept, rtol=1e-5)
    after = read_run(tmp_path, "grad_norm", "applied").total
    np.testing.assert_allclose(after, np.minimum(before, 0.5), rtol=1e-4)


def test_updates_activations_and_every_n_steps(tmp_path: Path) -> None:
    chosen = (GradNorm(), UpdateRatio(), OutputGradRMS())
    monitor = HuggingFaceMonitor(2, chosen, activations=["*.c_attn"])
    trainer(tmp_path, monitor).train()
    for quantity in chosen:
        history = read_run(tmp_path, quantity.name)
        assert history.steps.tolist() == [0, 2, 4]
        assert (history[LAYER] > 0).all()


def test_watching_does_not_change_the_weights(tmp_path: Path) -> None:
    def weights(*callbacks: Any) -> Iterator[Tensor]:
        run = trainer(tmp_path, *callbacks, max_steps=30)
        run.train()
        return run.model.parameters()

    for one, other in zip(weights(), weights(HuggingFaceMonitor()), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    steps = {"save_strategy": "steps", "save_steps": 3}
    trainer(tmp_path, HuggingFaceMonitor(), **{**steps, "max_steps": 3}).train()
    run = trainer(tmp_path, HuggingFaceMonitor(), **steps)
    run.train(resume_from_checkpoint=True)
    assert [path.name for path in (tmp_path / "gradlab").iterdir()] == ["version_0"]
    assert read_run(tmp_path).steps.tolist() == [0, 1, 2, 3, 4]
    trainer(tmp_path, HuggingFaceMonitor()).train()
    assert (tmp_path / "gradlab" / "version_1").is_dir()


def test_two_monitors_of_a_trainer_write_to_folders_of_their_own(
    tmp_path: Path,
) -> None:
    def run(max_steps: int) -> Any:
        layers = (LAYER,), ("transformer.ln_f",)
        both = [HuggingFaceMonitor(modules=one) for one in layers]
        steps = {"save_strategy": "steps", "save_steps": 3, "max_steps": max_steps}
        return trainer(tmp_path, *both, **steps)

    run(3).train()
    run(5).train(resume_from_checkpoint=True)
    first = read_run(tmp_path / "gradlab" / "version_0")
    second = read_run(tmp_path / "gradlab_1" / "version_0")
    assert (first.layers, second.layers) == ((LAYER,), ("transformer.ln_f",))
    assert first.steps.tolist() == second.steps.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="name one of gradlab/version_0, gradlab_1/"):
        read_run(tmp_path)


def test_a_run_with_no_place_for_its_files_goes_on(tmp_path: Path) -> None:
    (tmp_path / "gradlab").touch()
    lost: list[int] = []

    class Lost(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            assert monitor.monitor is not None
            lost.append(monitor.monitor.lost)

    monitor = HuggingFaceMonitor(quantities=[GradNorm()], pathologies=True)
    run = trainer(tmp_path, Lost(), monitor, max_grad_norm=0.0)
    with pytest.warns(RuntimeWarning, match="an event file is written below"):
        run.train()
    assert run.state.global_step == 5
    assert lost == [1, 2, 3, 4, 5]


def test_two_ranks_write_one_file_of_the_reduced_gradient(tmp_path: Path) -> None:
    script = Path(__file__).with_name("hugging_face_run.py")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env={
                **os.environ,
                **world,
                "RANK": rank,
                "LOCAL_RANK": rank,
                "PYTHONPATH": str(script.parents[2]),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors
    assert len(list(tmp_path.rglob("*tfevents*"))) == 1
    expected = json.loads((tmp_path / "norms.json").read_text())
    np.testing.assert_allclose(read_run(tmp_path).total, expected, rtol=1e-6)


def hooks(run: Any) -> list[Any]:
    optimizer = run.optimizer.optimizer
    return [
        *optimizer._optimizer_step_pre_hooks,
        *optimizer._optimizer_step_post_hooks,
        *(hook for m in run.model.modules() for hook in m._forward_hooks),
        *(p for p in run.model.parameters() if p._post_accumulate_grad_hooks),
    ]


def test_the_model_is_let_go_after_the_run(tmp_path: Path) -> None:
    monitor = HuggingFaceMonitor(activations=True)
    run = trainer(tmp_path, monitor)
    run.train()
    assert not hooks(run)
    for twin in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        trainer(tmp_path, twin).train()
    assert len(list((tmp_path / "gradlab").iterdir())) == 3


def test_the_model_is_let_go_by_detach_after_an_exception(tmp_path: Path) -> None:
    class Failing(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            if state.global_step == 2:
                raise RuntimeError("out of memory")

    monitor = HuggingFaceMonitor(activations=True)
    run = trainer(tmp_path, monitor, Failing())
    with pytest.raises(RuntimeError, match="out of memory"):
        run.train()
    assert hooks(run)
    monitor.detach()
    assert not hooks(run)
    assert read_run(tmp_path).steps.tolist() == [0, 1]


def test_the_trigger_moves_on_when_its_parameter_is_frozen(tmp_path: Path) -> None:
    class Freezing(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            watched = [
                p for p in kw["model"].parameters() if p._post_accumulate_grad_hooks
            ]
            if state.global_step == 2:
                assert len(watched) == 1
                watched[0].requires_grad_(False)

    trainer(tmp_path, HuggingFaceMonitor(), Freezing()).train()
    assert read_run(tmp_path, stage="unscaled").steps.tolist() == [0, 1, 3, 4]
    assert read_run(tmp_path, stage="applied").steps.tolist() == [0, 1, 2, 3, 4]


def test_findings_are_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = gpt2()
    with torch.no_grad():
        model.get_parameter("transformer.ln_f.weight").fill_(torch.nan)
    monitor = HuggingFaceMonitor(pathologies=True)
    trainer(tmp_path, monitor, model=model).train()
    folder = tmp_path / "gradlab" / "version_0"
    (line, *_) = (folder / "findings.jsonl").read_text().splitlines()
    assert json.loads(line)["code"] == "non_finite"
    assert "non_finite" in capsys.readouterr().err
    assert (folder / "recording.json").is_file()


def test_flat_pieces_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, HuggingFaceMonitor())
    run.args.deepspeed = {"zero_optimization": {"stage": 2}}
    with pytest.raises(ValueError, match="got a run of DeepSpeed, which keeps flat"):
        run.train()


@pytest.mark.parametrize(("dry_run", "steps"), [(True, 5), (False, 2)])
def test_an_action_stops_the_run(tmp_path: Path, dry_run: bool, steps: int) -> None:
    class Spoiling(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            if state.global_step == 1:
                with torch.no_grad():
                    kw["model"].get_parameter("transformer.ln_f.bias").fill_(torch.nan)

    options: Any = {"pathologies": True, "actions": [Stop()], "dry_run": dry_run}
    run = trainer(tmp_path, HuggingFaceMonitor(**options), Spoiling())
    run.train()
    assert run.state.global_step == steps
