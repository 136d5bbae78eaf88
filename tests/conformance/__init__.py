"""The conformance matrix: every op, every sample, every cell; nothing written per op.

`CELLS` is the matrix's header, a claim about ops; `MODULE_CELLS` one about Modules.
"""

from ._cells import CELLS as CELLS
from ._evaluate import samples as samples
from ._matrix import (
    failure as failure,
    matrix as matrix,
    torch_fails_too as torch_fails_too,
)
from ._module_cells import MODULE_CELLS as MODULE_CELLS
