"""What goes wrong in training: one pathology, one file, a rule over the last steps.

Every `_x.py` has one frozen dataclass that is called with a `History` and returns a
`Finding`, or None when it is not sure. To add one: the file, its line here,
`tests/pathologies/test_x.py`, and a fault in `experiments/bench/_planted.py`.
"""

from ._clipping_always_on import ClippingAlwaysOn as ClippingAlwaysOn
from ._dead_units import DeadUnits as DeadUnits
from ._disconnected import Disconnected as Disconnected
from ._exploding import Exploding as Exploding
from ._exploding_activations import ExplodingActivations as ExplodingActivations
from ._finding import Finding as Finding
from ._gains import Shares as Shares, shares as shares
from ._history import History as History
from ._noise_dominated import NoiseDominated as NoiseDominated
from ._non_finite import NonFinite as NonFinite
from ._pathology import Pathology as Pathology
from ._saturated_units import SaturatedUnits as SaturatedUnits
from ._sudden_growth import SuddenGrowth as SuddenGrowth
from ._underflow import Underflow as Underflow
from ._update_too_large import UpdateTooLarge as UpdateTooLarge
from ._update_too_small import UpdateTooSmall as UpdateTooSmall
from ._vanishing import Vanishing as Vanishing
from ._wrong_backward import WrongBackward as WrongBackward

pathologies: tuple[Pathology, ...] = (
    NonFinite(),
    Disconnected(),
    DeadUnits(),
    SaturatedUnits(),
    Vanishing(),
    Exploding(),
    ExplodingActivations(),
    SuddenGrowth(),
    UpdateTooLarge(),
    NoiseDominated(),
    UpdateTooSmall(),
    Underflow(),
    ClippingAlwaysOn(),
    WrongBackward(),
)
"""What a watchdog looks for; likelier causes come first. A rule is in here only if it
spoke in at most 1 % of the healthy runs of networks that it was not tuned on
(`make bench-faults`; `WrongBackward`, which compares backwards and reads no gradient,
is tested on its own)."""
