"""The conformance matrix: every op, every sample, every check; nothing written per op.

`CELLS` is the matrix's header: the checks of `gradlab.checks`, in strict form, and
what only a drop-in can claim. `MODULE_CELLS` are claims about Modules.
"""

from ._cells import CELLS as CELLS, samples as samples
from ._drop_in import MODULE_CELLS as MODULE_CELLS
from ._matrix import (
    Outcome as Outcome,
    matrix as matrix,
    outcome as outcome,
    torch_fails_too as torch_fails_too,
)
