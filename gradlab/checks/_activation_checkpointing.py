"""A forward that runs a second time, in the backward, gives the same gradient."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError, checkpoint

from gradlab._report import Level, Severity
from gradlab.subject import Crash, Grads, Mismatch, Subject, attempt, functions, grad

from ._difference import differences, figures, named, torchs_own
from ._refusal import refuses

_CODE = "activation_checkpointing"
# Without its decorator, which would import Dynamo too.
_checkpoint = inspect.unwrap(checkpoint)


@dataclass(frozen=True)
class ActivationCheckpointing:
    """x̄(checkpoint(f)) = x̄(f) for each `use_reentrant` in `ways`.

    The first forward saves nothing and the second one, in the backward, everything.
    Without reentry each saved tensor is handed out once, so that a backward that reads
    `ctx.saved_tensors` twice is refused. That way imports all of Dynamo, a second in a
    fresh process: it is for who asks, as the conformance suite does.
    """

    level: Level = "contract"
    ways: tuple[bool, ...] = (True,)
    refused: Severity = "note"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch when a gradient is another, or raises only there."""
        if not functions(subject):
            return
        for reentrant in self.ways:
            yield from self._compare(subject, reentrant)

    def _compare(self, subject: Subject, reentrant: bool) -> Iterator[Mismatch]:
        how = f"under torch.utils.checkpoint (use_reentrant={reentrant})"
        got = attempt(lambda: _checkpointed(subject, reentrant))
        crashed = isinstance(got, Crash)
        found = [] if crashed else differences(subject, got, subject.gradients[0])
        if not (crashed or found) or torchs_own(
            subject,
            lambda: _checkpointed(subject, reentrant),
            lambda: subject.vjp(subject.cotangents[0]),
        ):
            return
        if crashed:
            refused = isinstance(got.error, CheckpointError) or refuses(got.error)
            severity = self.refused if refused else "warning"
            yield Mismatch(
                _CODE,
                severity,
                f"{how} it raises {got}",
                verdict="correct" if severity == "note" else "fragile",
                hint="read ctx.saved_tensors once, and save the same tensors whenever "
                "the forward runs",
                subject=subject,
            )
            return
        yield Mismatch(
            _CODE,
            "error",
            f"the gradient of {named(subject, found)} is another {how}",
            hint="the forward must give the same when it runs again: keep no state "
            "outside of ctx, and draw from torch's generators only",
            numbers=figures(found),
            subject=subject,
            place=found[0].place,
        )


def _checkpointed(subject: Subject, reentrant: bool) -> Grads:
    def run(*xs: Tensor) -> tuple[Tensor, ...]:
        return subject.run(xs)

    leaves = subject.fresh()
    # Every run starts from the random state that it restores itself.
    ys = _checkpoint(run, *leaves, use_reentrant=reentrant, preserve_rng_state=False)
    vs = [v.clone() for v in subject.cotangents[0]]
    if not reentrant:
        return grad(ys, leaves, vs)
    # Reentrant checkpointing refuses torch.autograd.grad.
    torch.autograd.backward(ys, vs)
    return tuple(x.grad for x in leaves)
