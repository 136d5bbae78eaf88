"""Names the operation that made the first non-finite number, by running a step again.

`_forward_calls` keeps what a model was called with, `_replay` runs it again between the
covers of `_untouched`, `_births` looks at every operator meanwhile, `_evidence` at the
one that is to blame; `_culprit` is what is said of it.
"""

from ._culprit import Culprit as Culprit, Operand as Operand
from ._find import find_non_finite as find_non_finite
from ._trace import NonFiniteTrace as NonFiniteTrace

__all__ = ["Culprit", "NonFiniteTrace", "Operand", "find_non_finite"]
