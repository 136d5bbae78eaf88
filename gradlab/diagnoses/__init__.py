"""Why a gradient is wrong: each diagnosis recognises one mistake and says its number.

Every `_x.py` has one frozen dataclass that is called with a `Mismatch` and returns one
sentence, or None. To add one: the file, its line here, and its mutant in
`tests/diagnoses/mutants.py`, which it, and no other diagnosis, must claim.
"""

from collections.abc import Callable

from gradlab.subject import Mismatch

from ._altered_term import AlteredTerm as AlteredTerm
from ._constant_factor import ConstantFactor as ConstantFactor
from ._dropped_output import DroppedOutput as DroppedOutput
from ._extra_factor import ExtraFactor as ExtraFactor
from ._first_element_only import FirstElementOnly as FirstElementOnly
from ._ignores_grad_output import IgnoresGradOutput as IgnoresGradOutput
from ._misread_grad_output import MisreadGradOutput as MisreadGradOutput
from ._missing_conjugate import MissingConjugate as MissingConjugate
from ._missing_derivative import MissingDerivative as MissingDerivative
from ._missing_eps import MissingEps as MissingEps
from ._missing_gradient import MissingGradient as MissingGradient
from ._missing_term import MissingTerm as MissingTerm
from ._nonlinear_grad_output import NonlinearGradOutput as NonlinearGradOutput
from ._not_deterministic import NotDeterministic as NotDeterministic
from ._off_by_one import OffByOne as OffByOne
from ._partial_factor import PartialFactor as PartialFactor
from ._sign_flip import SignFlip as SignFlip
from ._swapped_inputs import SwappedInputs as SwappedInputs
from ._transposed import Transposed as Transposed
from ._unflipped_kernel import UnflippedKernel as UnflippedKernel
from ._unreduced import Unreduced as Unreduced
from ._wrong_argument import WrongArgument as WrongArgument
from ._wrong_direction import WrongDirection as WrongDirection
from ._wrong_index import WrongIndex as WrongIndex
from ._wrong_operand import WrongOperand as WrongOperand

Diagnosis = Callable[[Mismatch], str | None]

diagnoses: tuple[Diagnosis, ...] = (
    MissingGradient(),
    NotDeterministic(),
    SignFlip(),
    ConstantFactor(),
    IgnoresGradOutput(),
    DroppedOutput(),
    SwappedInputs(),
    UnflippedKernel(),
    Transposed(),
    OffByOne(),
    WrongIndex(),
    WrongDirection(),
    FirstElementOnly(),
    NonlinearGradOutput(),
    MisreadGradOutput(),
    MissingConjugate(),
    Unreduced(),
    ExtraFactor(),
    WrongOperand(),
    MissingEps(),
    WrongArgument(),
    MissingTerm(),
    MissingDerivative(),
    PartialFactor(),
    AlteredTerm(),
)
"""Every diagnosis, the most specific first."""
