"""One claim a cell: a check of `gradlab.checks`, run on an op at one sample.

A check that has a strict form is taken in it, and a note counts as a failure: what is
optional for a user's Function is promised by every layer. Two notes are excused: faults
of torch itself, which name an issue, and a gradient that the engine casts, since the
rules compute in float32 for half precision.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gradlab import OpInfo, SampleInput
from gradlab._opinfo import make_tensors
from gradlab._run import code_of
from gradlab.checks import (
    AccurateAsReference,
    ActivationCheckpointing,
    Compiled,
    KeepsNothing,
    MatchesReference,
    NeedsInputGrad,
    checks,
)
from gradlab.subject import Check, Mismatch, Subject, build, undisturbed

from ._drop_in import drop_in_op

Cell = Callable[[OpInfo, SampleInput], None]

_STRICT: tuple[Check, ...] = (
    ActivationCheckpointing(ways=(False, True), refused="error"),
    Compiled(func=False),
    KeepsNothing(attribute="error"),
    NeedsInputGrad(waste="error"),
)
_AGAINST_TORCH: dict[str, Check] = {
    "matches_torch": MatchesReference(),
    "accurate_as_torch": AccurateAsReference(factor=2.0),
}


def samples(opinfo: OpInfo, dtype: torch.dtype = torch.float64) -> list[SampleInput]:
    return list(opinfo.sample_inputs(make_tensors(dtype)))


@functools.lru_cache(maxsize=4)
def subject_of(op: Any, reference: Any, sample: SampleInput) -> Subject:
    """The op at the sample; all checks of it share what the subject finds out."""
    return build(op, sample.args, kwargs=sample.kwargs, reference=reference)


def _cell(check: Check, against_torch: bool = False) -> Cell:
    def run(opinfo: OpInfo, sample: SampleInput) -> None:
        reference = opinfo.torch_op if against_torch else opinfo.reference
        with undisturbed():
            subject = subject_of(opinfo.op, reference, sample)
            found = [m for m in check(subject) if not _excused(m)]
        assert not found, "\n".join(f"{m.severity}: {m.message}" for m in found)

    return run


def _excused(mismatch: Mismatch) -> bool:
    return mismatch.severity == "note" and (
        "(pytorch#" in mismatch.message or mismatch.code == "raw_gradients"
    )


def _cells() -> Iterator[tuple[str, Cell]]:
    strict = {type(check): check for check in _STRICT}
    for check in checks:
        yield code_of(check), _cell(strict.get(type(check), check))
    for name, check in _AGAINST_TORCH.items():
        yield name, _cell(check, against_torch=True)
    yield "drop_in_op", drop_in_op


CELLS: dict[str, Cell] = dict(_cells())
