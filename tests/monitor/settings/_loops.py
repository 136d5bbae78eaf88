"""Training loops as people write them. `run.expect` marks where a reading is due."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ._run import Run


def plain(run: Run, start: int = 0, steps: int | None = None) -> None:
    for batch in run.batches(steps, start):
        run.optimizer.zero_grad()
        run.loss(batch).backward()
        run.expect()
        run.optimizer.step()


def autocast(run: Run) -> None:
    for batch in run.batches():
        run.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = run.loss(batch)
        loss.backward()
        run.expect()
        run.optimizer.step()


def scaled(
    skips: tuple[int, ...] = (), set_to_none: bool = True, unscale: bool = False
) -> Callable[[Run], None]:
    """Under GradScaler, with infinite batches at some steps."""

    def loop(run: Run) -> None:
        scaler: Any = run.scaler
        for step, batch in enumerate(run.batches()):
            run.optimizer.zero_grad(set_to_none)
            factor = torch.inf if step in skips else 1.0
            scaler.scale(run.loss(batch) * factor).backward()
            if unscale:
                scaler.unscale_(run.optimizer)
                run.before_clipping()
                total = clip_grad_norm_(run.model.parameters(), 0.1)
                run.expect(stage="unscaled", total=total)
                run.expect()
            elif step not in skips or _fused(run):
                run.expect(scale=scaler.get_scale())
            else:
                run.forget()
            scaler.step(run.optimizer)
            scaler.update()

    return loop


def _fused(run: Run) -> bool:
    return getattr(run.optimizer, "_step_supports_amp_scaling", False)


def accumulated(run: Run) -> None:
    """Windows of three in epochs of ten: the last window of each has one."""
    for index, batch in enumerate(run.batches()):
        place = index % 10
        window = 1 if place == 9 else 3
        (run.loss(batch) / window).backward()
        if place % 3 == 2 or place == 9 or index == run.steps - 1:
            run.expect()
            run.optimizer.step()
            run.optimizer.zero_grad()


def clipped_by_norm(run: Run) -> None:
    for batch in run.batches():
        run.optimizer.zero_grad()
        run.loss(batch).backward()
        run.before_clipping()
        total = clip_grad_norm_(run.model.parameters(), 0.1)
        run.expect(stage="unscaled", total=_whole(total))
        run.expect()
        run.optimizer.step()


def clipped_by_value(run: Run) -> None:
    for batch in run.batches():
        run.optimizer.zero_grad()
        run.loss(batch).backward()
        run.before_clipping()
        run.expect(stage="unscaled")
        clip_grad_value_(run.model.parameters(), 0.01)
        run.expect()
        run.optimizer.step()


def _whole(total: Any) -> Tensor:
    return total.full_tensor() if hasattr(total, "full_tensor") else total


def both(run: Run) -> None:
    """Two optimizers share one backward pass."""
    for batch in run.batches():
        for optimizer in run.optimizers:
            optimizer.zero_grad()
        run.loss(batch).backward()
        for optimizer in run.optimizers:
            run.expect(optimizer)
            optimizer.step()


def in_turns(run: Run) -> None:
    """Two critic steps for each of the generator, whose gradient goes through it."""
    model: Any = run.model
    generator, critic = run.optimizers
    for index, batch in enumerate(run.batches()):
        critic.zero_grad()
        with torch.no_grad():
            fake = model.one(batch)
        (model.two(fake).mean() - model.two(batch).mean()).square().backward()
        run.expect(critic)
        critic.step()
        if index % 2:
            generator.zero_grad()
            model.two(model.one(batch)).square().mean().backward()
            run.expect(generator)
            generator.step()


def penalized(run: Run) -> None:
    """The loss has a gradient in it, that is computed by a backward pass of its own."""
    for batch in run.batches():
        run.optimizer.zero_grad()
        batch.requires_grad_(True)
        loss = run.loss(batch)
        (slope,) = torch.autograd.grad(loss, batch, create_graph=True)
        (loss + slope.square().sum()).backward()
        run.expect()
        run.optimizer.step()


def with_closure(run: Run) -> None:
    """The closure computes the gradient, often more than once in a step."""
    for batch in run.batches():
        first = True

        def closure(batch: Tensor = batch) -> Tensor:
            nonlocal first
            run.optimizer.zero_grad()
            loss = run.loss(batch)
            loss.backward()
            if first:
                run.expect()
                first = False
            return loss

        run.optimizer.step(closure)
        run.forget()


def unfrozen(run: Run) -> None:
    """A frozen layer is trained from the middle of the run on."""
    frozen, half = run.model.get_submodule("2"), run.steps // 2
    frozen.requires_grad_(False)
    plain(run, 0, half)
    frozen.requires_grad_(True)
    if len(run.optimizer.param_groups) == 1:
        run.optimizer.add_param_group({"params": [*frozen.parameters()]})
    plain(run, half)


def evaluated(run: Run) -> None:
    """Each step is followed by an evaluation."""
    for batch in run.batches():
        run.optimizer.zero_grad()
        run.loss(batch).backward()
        run.model.eval()
        with torch.no_grad():
            run.loss(batch * 100)
        run.model.train()
        run.expect()
        run.optimizer.step()


def resumed(run: Run) -> None:
    half = run.steps // 2
    plain(run, 0, half)
    run.restart()
    plain(run, half)


def without_sync(run: Run) -> None:
    """Ranks exchange gradients in the last of three microbatches only."""
    for index, batch in enumerate(run.batches()):
        last = index % 3 == 2 or index == run.steps - 1
        if isinstance(run.forward, DistributedDataParallel):
            run.forward.require_backward_grad_sync = last
        else:
            run.forward.set_requires_gradient_sync(last)
        (run.loss(batch) / 3).backward()
        if last:
            run.expect()
            run.optimizer.step()
            run.optimizer.zero_grad()
