"""The thing under test: a function at a point, how to run it, and the truth about it.

`build` makes a `Subject` of what the user passed; `truth` finds the gradient to hold it
against; checks read both and yield `Mismatch`es.
"""

from ._arguments import describe as describe
from ._build import build as build, subject_of as subject_of
from ._choice import recognise as recognise
from ._finite_differences import (
    Derivative as Derivative,
    derivative as derivative,
    gradient as gradient,
    natural_directions as natural_directions,
    symmetrised as symmetrised,
)
from ._functions import (
    BackwardCall as BackwardCall,
    Call as Call,
    FunctionClass as FunctionClass,
    OwnContext as OwnContext,
    arguments_kept as arguments_kept,
    backwards_recorded as backwards_recorded,
    calls_recorded as calls_recorded,
    graph_nodes as graph_nodes,
    no_grad_ignored as no_grad_ignored,
    own_forward as own_forward,
    own_forward_differentiated as own_forward_differentiated,
    own_forward_stands_in as own_forward_stands_in,
)
from ._kink import judge as judge
from ._lent import undisturbed as undisturbed
from ._locate import locate as locate
from ._mismatch import (
    Check as Check,
    Crash as Crash,
    Mismatch as Mismatch,
    NotChecked as NotChecked,
    attempt as attempt,
)
from ._random_state import RandomState as RandomState
from ._subject import (
    Grads as Grads,
    Subject as Subject,
    Tensors as Tensors,
    filled as filled,
    grad as grad,
    inner as inner,
    largest_entry as largest_entry,
    normal_like as normal_like,
)
from ._truth import (
    DIFFERENCES as DIFFERENCES,
    FORWARD as FORWARD,
    GIVEN as GIVEN,
    OWN as OWN,
    Truth as Truth,
    expected_gradient as expected_gradient,
    functions as functions,
    is_bare as is_bare,
    own_gradient as own_gradient,
    truth as truth,
)
