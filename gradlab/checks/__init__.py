"""What a backward must satisfy: each check is one claim, an equation in its docstring.

Every `_x.py` has one frozen dataclass that is called with a `Subject` and yields
`Mismatch`es. To add one: the file, its line here, and `tests/checks/test_x.py`.
"""

from gradlab.subject import Check

from ._accurate_as_reference import AccurateAsReference as AccurateAsReference
from ._activation_checkpointing import (
    ActivationCheckpointing as ActivationCheckpointing,
)
from ._any_grad_output_layout import AnyGradOutputLayout as AnyGradOutputLayout
from ._any_input_layout import AnyInputLayout as AnyInputLayout
from ._autocast import Autocast as Autocast
from ._compiled import Compiled as Compiled
from ._deterministic import Deterministic as Deterministic
from ._empty_batch import EmptyBatch as EmptyBatch
from ._forward_mode import ForwardMode as ForwardMode
from ._func_grad import FuncGrad as FuncGrad
from ._holds_at_other_points import HoldsAtOtherPoints as HoldsAtOtherPoints
from ._keeps_nothing import KeepsNothing as KeepsNothing
from ._leaves_arguments_alone import LeavesArgumentsAlone as LeavesArgumentsAlone
from ._linear_in_grad_output import LinearInGradOutput as LinearInGradOutput
from ._low_precision import LowPrecision as LowPrecision
from ._matches_finite_differences import (
    MatchesFiniteDifferences as MatchesFiniteDifferences,
)
from ._matches_reference import MatchesReference as MatchesReference
from ._needs_input_grad import NeedsInputGrad as NeedsInputGrad
from ._raw_gradients import RawGradients as RawGradients
from ._repeatable import Repeatable as Repeatable
from ._same_tensor_twice import SameTensorTwice as SameTensorTwice
from ._saved_tensors_hooks import SavedTensorsHooks as SavedTensorsHooks
from ._second_derivative import SecondDerivative as SecondDerivative
from ._transforms_match_reference import (
    TransformsMatchReference as TransformsMatchReference,
)
from ._undefined_gradients import UndefinedGradients as UndefinedGradients
from ._vmap import Vmap as Vmap

checks: tuple[Check, ...] = (
    MatchesReference(),
    MatchesFiniteDifferences(),
    LinearInGradOutput(),
    LeavesArgumentsAlone(),
    AnyGradOutputLayout(),
    AnyInputLayout(),
    Repeatable(),
    SameTensorTwice(),
    NeedsInputGrad(),
    UndefinedGradients(),
    Deterministic(),
    KeepsNothing(),
    SavedTensorsHooks(),
    ActivationCheckpointing(),
    RawGradients(),
    EmptyBatch(),
    LowPrecision(),
    Autocast(),
    SecondDerivative(),
    ForwardMode(),
    FuncGrad(),
    Vmap(),
    TransformsMatchReference(),
    Compiled(),
    HoldsAtOtherPoints(),
)
"""Every check, in the order in which they run."""
