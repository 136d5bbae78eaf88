"""What the forward saves may be packed away and brought back in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab._report import Level
from gradlab.subject import Crash, Grads, Mismatch, Subject, attempt, functions, grad

from ._difference import differences, figures, named, torchs_own

_CODE = "saved_tensors_hooks"
_Packed = tuple[torch.device, Tensor]


@dataclass(frozen=True)
class SavedTensorsHooks:
    """x̄(saved) = x̄(copies of saved): hooks pack every saved tensor and unpack it.

    As `torch.autograd.graph.save_on_cpu` does: the values come back contiguous and in
    other memory. What is kept on ctx itself goes past them; `KeepsNothing` says so.
    """

    level: Level = "contract"

    def __call__(self, subject: Subject) -> Iterator[Mismatch]:
        """Yields a mismatch when the gradient is another, or only there raises."""
        if not functions(subject):
            return
        got = attempt(lambda: _packed(subject))
        crashed = isinstance(got, Crash)
        found = [] if crashed else differences(subject, got, subject.gradients[0])
        if not (crashed or found) or torchs_own(
            subject,
            lambda: _packed(subject),
            lambda: subject.vjp(subject.cotangents[0]),
        ):
            return
        if crashed:
            yield Mismatch(
                _CODE,
                "warning",
                f"with saved-tensor hooks, as save_on_cpu sets them, it raises {got}",
                hint="the backward must take what ctx.saved_tensors gives: not look at "
                "its address, and compute its strides anew",
                subject=subject,
            )
            return
        yield Mismatch(
            _CODE,
            "error",
            f"the gradient of {named(subject, found)} is another when what was saved "
            "went through saved-tensor hooks, as with save_on_cpu",
            hint="the backward must not rely on the address or the strides of what it "
            "saved, nor on tensors that share its memory",
            numbers=figures(found),
            subject=subject,
            place=found[0].place,
        )


def _packed(subject: Subject) -> Grads:
    leaves = subject.fresh()
    with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        ys = subject.run(leaves)
    return grad(ys, leaves, [v.clone() for v in subject.cotangents[0]])


def _pack(saved: Tensor) -> _Packed:
    dense = saved.layout == torch.strided
    layout = torch.contiguous_format if dense else torch.preserve_format
    return saved.device, saved.detach().cpu().clone(memory_format=layout)


def _unpack(packed: _Packed) -> Tensor:
    device, values = packed
    return values.to(device)
