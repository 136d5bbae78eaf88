"""Remembers the batch of a step, to find out what made its gradient non-finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..._snapshot import Snapshot
from ...pathologies import Finding
from ._births import Births, CollectiveError
from ._culprit import Culprit, Kind
from ._finite import non_finite
from ._forward_calls import ForwardCalls
from ._replay import replay


class NonFiniteTrace:
    """Names the operation that made the first NaN or infinity of a step.

    It keeps *references* to what the model was called with since the last step of the
    optimizer, and to the gradients that came back to its outputs. When a gradient is
    not finite, and before the optimizer has changed a weight, it runs these calls again
    and looks at every operation: the first whose result is not finite although all it
    was given is, in the forward or in the backward, is the culprit. Nothing changes by
    this: no weight, gradient, buffer, hook or random number.

    A healthy step costs two hooks on the model. The inputs of the last step, and the
    gradient of its output, live on until the next forward.

    Give it to a watchdog, which asks it at the first bad reading and hands its answer
    on with the finding:

        trace = NonFiniteTrace(model)
        watchdog = Watchdog(explain=[trace])
        Monitor(model, optimizer, quantities=[...], sinks=[watchdog])

    A step that `GradScaler` skips is read by nobody: call `find()` after `backward()`.

    If the model itself is never called but its children are, as by a `training_step`,
    their calls are kept. Under DistributedDataParallel each rank looks at its own
    batch. Of sharded parameters (FSDP, FSDP2), and of models that communicate in their
    forward, nothing is run again, since every rank would have to: only the batch, the
    weights and the gradient of the output are looked at. With torch.compile pass the
    compiled model; its original is run again.

    Args:
        model: The model.
        calls: How many calls since the last step are kept; with accumulation, how many
            microbatches.

    Raises:
        TypeError: If `model` is not a module.
        ValueError: If `calls` is below 1.

    Attributes:
        model: What is run again.
        culprit: What was found at the first bad reading; None before it.

    Example:
        >>> class Length(nn.Module):
        ...     def forward(self, x):
        ...         return x.square().sum(1).sqrt()
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), Length())
        >>> with NonFiniteTrace(model) as trace:
        ...     model(torch.tensor([[1.0, 2.0], [0.0, 0.0]])).sum().backward()
        ...     culprit = trace.find()
        >>> culprit.kind, culprit.function, culprit.module, culprit.entries
        ('backward', 'sqrt', '1', (1,))
    """

    def __init__(self, model: nn.Module, *, calls: int = 8) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"a trace follows a torch.nn.Module, got {type(model).__name__}"
            )
        if calls < 1:
            raise ValueError(f"a trace keeps at least one call, got calls={calls}")
        called, self.model = _unwrapped(model)
        self.culprit: Culprit | None = None
        self._calls = ForwardCalls(called, self.model, calls)
        self._bad: set[tuple[str, str]] = set()

    def restore(self) -> None:
        """Follow the model again after `remove`; safe to call twice."""
        self._calls.restore()

    def remove(self) -> None:
        """Leave no hook behind; safe to call twice."""
        self._calls.remove()

    def __enter__(self) -> NonFiniteTrace:
        return self

    def __exit__(self, *raised: object) -> None:
        self.remove()

    def find(self) -> Culprit:
        """Run the kept calls again and name what made the first non-finite number.

        Call it after the backward pass, before the optimizer changes a weight.

        Returns:
            What made it; of kind `unknown`, with the reason, if that was not found out.
        """
        try:
            return self._find()
        except CollectiveError as error:
            return self._at_a_glance(
                f"nothing was run again, since {error} needs every rank to take part"
            )
        except Exception as error:
            return _unknown(f"the replay raised {type(error).__name__}: {error}")

    def observe(self, snapshot: Snapshot) -> None:
        """Look at a reading; at the first bad one find out why.

        Args:
            snapshot: What was measured, before the optimizer takes its step; one
                without the quantity `grad_nonfinite` is passed over.
        """
        if "grad_nonfinite" not in snapshot.quantities:
            return
        key = snapshot.stage, snapshot.rows[0].name
        if not _is_bad(snapshot):
            self._bad.discard(key)
            return
        if not self._bad:
            self.culprit = self.find()
        self._bad.add(key)

    def __call__(self, finding: Finding) -> Finding:
        """Add the culprit to a finding of non-finite gradients.

        Args:
            finding: What a pathology found.

        Returns:
            The same, of another pathology; else one that names the culprit.
        """
        culprit = self.culprit
        if finding.code != "non_finite" or culprit is None:
            return finding
        if culprit.kind == "unknown":
            return replace(finding, causes=(*finding.causes, str(culprit)))
        first = culprit.names or (culprit.module or "root",)
        if culprit.kind == "batch":
            first = ()
        evidence = {"culprit_entries": float(culprit.count)}
        if culprit.entries:
            evidence["batch_entries"] = float(len(culprit.entries))
        # Of weights that were lost before, the finding knows more.
        known = culprit.kind != "weights"
        return replace(
            finding,
            symptom=f"{finding.symptom}. Origin: {culprit}",
            layers=tuple(dict.fromkeys((*first, *finding.layers))),
            evidence={**finding.evidence, **evidence},
            causes=(culprit.cause,) if known else finding.causes,
            experiment=culprit.advice if known else finding.experiment,
            confidence=max(finding.confidence, 0.95),
        )

    def _find(self) -> Culprit:
        calls = list(self._calls.kept)
        if not calls:
            return self._at_a_glance(
                "no forward of the model was seen since the last step; the trace must "
                "be made of the module that is called: of what torch.compile returned, "
                "not of a model that was compiled in place"
            )
        if reason := _cannot_be_run_again(self.model):
            return self._at_a_glance(reason)
        if len(calls) > 1:
            for i, call in enumerate(calls):
                if found := replay(self.model, call, backward=False):
                    return self._marked(found, i)
        for i, call in reversed(list(enumerate(calls))):
            if found := replay(self.model, call):
                return self._marked(found, i)
        return _unknown("; ".join(self._all_is_finite()))

    def _marked(self, found: Culprit, place: int) -> Culprit:
        """The culprit, with the microbatch it is of."""
        calls = list(self._calls.kept)
        notes = [found.note] if found.note else []
        if calls[place].changed:
            notes.append("an input was changed in place since; it was run as it is now")
        same = [i for i, call in enumerate(calls) if call.path == calls[place].path]
        lost = self._calls.seen - len(calls)
        return replace(
            found,
            microbatch=same.index(place) + lost,
            microbatches=len(same) + lost,
            note=", ".join(notes),
        )

    def _all_is_finite(self) -> Iterator[str]:
        calls, seen = self._calls.kept, self._calls.seen
        yield (
            f"run again, the last {len(calls)} of {seen} forwards and their backwards "
            "are finite"
        )
        if not any(call.grads for call in calls):
            yield "no backward reached the output of the model"
        if any(call.changed for call in calls):
            yield "an input was changed in place since"
        if lost := seen - len(calls):
            yield f"{lost} earlier ones were not kept (calls={calls.maxlen})"
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            yield "it may be the batch of another rank"
        yield "it may come from a loss that does not go through the output of the model"

    def _at_a_glance(self, reason: str) -> Culprit:
        """What can be told without running anything."""
        for kind, name, tensor in self._at_hand():
            bad = non_finite(tensor)
            if bad and not (kind == "batch" and bad == {"-inf"}):
                culprit = Births().facts(kind, tensor, bad)
                return replace(culprit, names=(name,), note=reason)
        return _unknown(reason)

    def _at_hand(self) -> Iterator[tuple[Kind, str, Tensor]]:
        for name, parameter in self.model.named_parameters():
            local = getattr(parameter, "to_local", None)
            yield "weights", name, parameter if local is None else local()
        for call in self._calls.kept:
            for i, tensor in enumerate(call.inputs):
                yield "batch", call.name_of(i), tensor
        for call in self._calls.kept:
            for grad in call.grads.values():
                yield "loss", "", grad


def _unknown(reason: str) -> Culprit:
    return Culprit("unknown", note=reason)


def _is_bad(snapshot: Snapshot) -> bool:
    """Whether the gradients of a snapshot, or its parameters, are not finite."""
    there = dict(zip(snapshot.quantities, snapshot.available[0].tolist(), strict=True))
    total = snapshot.rows[0].name
    bad = there["grad_nonfinite"] and snapshot["grad_nonfinite", total] != 0
    if there.get("param_norm"):
        bad |= not math.isfinite(snapshot["param_norm", total])
    return bad


def _unwrapped(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The module whose calls are kept, and the one that is run again."""
    called = model
    if isinstance(called, nn.parallel.DistributedDataParallel):
        called = called.module
    original = called
    while True:
        if isinstance(original, nn.parallel.DistributedDataParallel):
            original = original.module
        elif isinstance(inner := getattr(original, "_orig_mod", None), nn.Module):
            original = inner
        else:
            return called, original


def _cannot_be_run_again(model: nn.Module) -> str:
    parameters = list(model.parameters())
    if any(hasattr(p, "full_tensor") for p in parameters):
        return "not run again under FSDP2, where every rank would have to take part"
    if any(hasattr(p, "ds_id") for p in parameters) or any(
        type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()
    ):
        return "not run again, since the parameters are sharded over the ranks"
    return ""
