"""Every op at every sample in every cell, and what becomes of it."""

import dataclasses
from collections.abc import Sequence

from gradlab import ModuleInput, OpInfo, SampleInput

from ._cells import CELLS
from ._evaluate import samples
from ._module_cells import MODULE_CELLS


def matrix(opinfos: Sequence[OpInfo]) -> list[tuple[OpInfo, SampleInput, str]]:
    """Every op at every sample in every cell that speaks about it."""
    return [
        (opinfo, sample, name)
        for opinfo in opinfos
        for sample in samples(opinfo)
        for name in CELLS
        if name != "empty_batch" or not sample.args[0].numel()
    ]


def failure(
    opinfo: OpInfo, sample: SampleInput | ModuleInput, cell: str
) -> Exception | None:
    """What the cell raises, or None where the claim holds."""
    try:
        if isinstance(sample, ModuleInput):
            MODULE_CELLS[cell](sample)
        else:
            CELLS[cell](opinfo, sample)
    except Exception as exception:
        return exception
    return None


def torch_fails_too(opinfo: OpInfo, sample: SampleInput, cell: str) -> bool:
    """Whether torch's own op fails the cell: the one excuse for a known failure."""
    torch_itself = dataclasses.replace(opinfo, op=opinfo.torch_op)
    return failure(torch_itself, sample, cell) is not None
