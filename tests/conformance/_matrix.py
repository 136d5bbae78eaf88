"""Every op at every sample in every cell, and what becomes of it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradlab import ModuleInput, OpInfo, SampleInput
from gradlab.subject import NotChecked

from ._cells import CELLS, samples
from ._drop_in import MODULE_CELLS


@dataclass(frozen=True)
class Outcome:
    """What became of a claim at a place, and why where it does not hold."""

    state: Literal["holds", "fails", "not checked"]
    why: str = ""


def matrix(opinfos: Sequence[OpInfo]) -> list[tuple[OpInfo, SampleInput, str]]:
    """Every op at every sample in every cell."""
    return [
        (opinfo, sample, name)
        for opinfo in opinfos
        for sample in samples(opinfo)
        for name in CELLS
    ]


def outcome(opinfo: OpInfo, sample: SampleInput | ModuleInput, cell: str) -> Outcome:
    """Runs one cell; whatever it raises but `NotChecked` is a failure."""
    try:
        if isinstance(sample, ModuleInput):
            MODULE_CELLS[cell](sample)
        else:
            CELLS[cell](opinfo, sample)
    except NotChecked as reason:
        return Outcome("not checked" if str(reason) else "fails", str(reason))
    except Exception as exception:
        return Outcome("fails", f"{type(exception).__name__}: {exception}")
    return Outcome("holds")


def torch_fails_too(opinfo: OpInfo, sample: SampleInput, cell: str) -> bool:
    """Whether torch's own op fails the cell: the one excuse for a known failure."""
    torch_itself = dataclasses.replace(opinfo, op=opinfo.torch_op)
    return outcome(torch_itself, sample, cell).state == "fails"
