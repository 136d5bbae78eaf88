"""What must hold in every setting: a column of the matrix each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from gradlab import Snapshot
from gradlab.tensorboard._run import load

from ._evidence import Evidence, difference, gather
from ._run import STEPS, Run, Setting


def changes_nothing(seen: Evidence) -> None:
    """Weights, optimizers, losses and random numbers are bitwise those unwatched."""
    if different := difference(*seen.states):
        raise AssertionError(f"not the same: {different}")


def total_is_clippings(seen: Evidence) -> None:
    """Every total is that of `get_total_norm` or `clip_grad_norm_` there."""
    got = [s["grad_norm", s.rows[0].name] for s in of_gradients(seen.watched)]
    want = [reading.total for reading in seen.watched.readings]
    same(len(got), len(want), "readings")
    for place, (one, other) in enumerate(zip(got, want, strict=True)):
        close(one, other, f"total of reading {place}")


def stage_is_said(seen: Evidence) -> None:
    """Each reading names the stage at which it was taken; of outputs it is raw."""
    got = [snapshot.stage for snapshot in of_gradients(seen.watched)]
    same(got, [reading.stage for reading in seen.watched.readings], "stages")
    rest = {s.stage for s in seen.watched.snapshots if "activation_rms" in s.quantities}
    same(rest, {"raw"}, "stages of activations")


def every_step_once(seen: Evidence) -> None:
    """Steps are counted from 0, in the snapshots as in the event file."""
    stages = [reading.stage for reading in seen.watched.readings]
    every = seen.watched.setting.every
    want = [every * n for n in range(stages.count("applied"))]
    applied = [s for s in of_gradients(seen.watched) if s.stage == "applied"]
    same([snapshot.step for snapshot in applied], want, "steps")
    entries = load(seen.folder).tables["grad_norm", "applied"]
    same([entry.step for entry in entries], want, "steps in the event file")


def activations_are_right(seen: Evidence) -> None:
    """Gradient and output rms are those of outputs that were retained."""
    want = [
        reading.activations
        for reading in seen.short.readings
        if reading.stage == "applied" and reading.activations
    ]
    got = [s for s in seen.short.snapshots if "activation_rms" in s.quantities]
    if not seen.short.setting.numbers:
        return
    same(len(got), len(want), "readings of activations")
    for snapshot, numbers in zip(got, want, strict=True):
        for row in snapshot.rows:
            grad, value = numbers[row.name]
            where = f"of {row.name} at step {snapshot.step}"
            close(snapshot["output_grad_rms", row.name], grad, f"gradient {where}")
            close(snapshot["activation_rms", row.name], value, f"output {where}")
        layers = {name for name in numbers if owns(seen.short.model, name)}
        missing = layers.difference(row.name for row in snapshot.rows)
        same(missing, set(), f"layers without a row at step {snapshot.step}")


def leaves_no_hook(seen: Evidence) -> None:
    """Detached, it leaves no hook and no attribute on anything."""
    plain, watched = seen.left
    same(watched - plain, set(), "hooks and attributes that were left")
    same(plain - watched, set(), "hooks and attributes that were taken")


def copies_are_free(seen: Evidence) -> None:
    """Watched, it is deep-copied and saved; copies train as if never watched."""
    if different := difference(*seen.twins):
        raise AssertionError(f"copies are not the same: {different}")
    same(seen.heard, 0, "snapshots of copies")


def says_only(seen: Evidence) -> None:
    """Nothing is warned of but what the setting says."""
    expected = seen.watched.setting.says
    others = [text for text in seen.said if not (expected and expected in text)]
    same(others, [], "warnings")
    same(bool(expected), bool(seen.said), "whether it warns")


PROPERTIES: dict[str, Callable[[Evidence], None]] = {
    check.__name__: check
    for check in (
        *(changes_nothing, total_is_clippings, stage_is_said, every_step_once),
        *(activations_are_right, leaves_no_hook, copies_are_free, says_only),
    )
}


def failures(setting: Setting, folder: Path, steps: int = STEPS) -> dict[str, str]:
    """What does not hold in a setting, by property, and why."""
    try:
        seen = gather(setting, folder, steps)
    except Exception as error:
        return dict.fromkeys(PROPERTIES, f"{type(error).__name__}: {error}")
    found: dict[str, str] = {}
    for name, check in PROPERTIES.items():
        try:
            check(seen)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def of_gradients(run: Run) -> list[Snapshot]:
    return [s for s in run.snapshots if "grad_norm" in s.quantities]


def owns(model: nn.Module, name: str) -> bool:
    module = model if name == "root" else model.get_submodule(name)
    return any(True for _ in module.parameters(recurse=False))


def same(got: Any, want: Any, what: str) -> None:
    if got != want:
        raise AssertionError(f"{what}: got {_short(got)}, not {_short(want)}")


def close(got: float, want: float, what: str) -> None:
    """Equal to the rounding of float32 sums; where one is not finite both are not."""
    finite = math.isfinite(got) or math.isfinite(want)
    if finite and not math.isclose(got, want, rel_tol=1e-5, abs_tol=1e-30):
        raise AssertionError(f"{what}: got {got}, not {want}")


def _short(thing: Any) -> str:
    if isinstance(thing, Sequence) and not isinstance(thing, str) and len(thing) > 8:
        return f"{list(thing[:8])}… ({len(thing)})"
    return repr(thing)
