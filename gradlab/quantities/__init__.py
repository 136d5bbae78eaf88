"""What is measured of a gradient: one quantity, one file, a formula over moments.

To add one: the file, its line here, and `tests/quantities/test_x.py`. A number that no
moment gives yet is one more moment in `_moments.py`.
"""

from ._activation_gain import ActivationGain as ActivationGain
from ._activation_mean import ActivationMean as ActivationMean
from ._activation_moments import (
    InactiveCount as InactiveCount,
    InputGradNorm as InputGradNorm,
    OutsideCount as OutsideCount,
    Total as Total,
    UnitCount as UnitCount,
    active_units as active_units,
    is_activation_function as is_activation_function,
)
from ._activation_rms import ActivationRMS as ActivationRMS
from ._clip_coefficient import ClipCoefficient as ClipCoefficient
from ._dead_units import DeadUnits as DeadUnits
from ._exponents import (
    BINS as BINS,
    Exponents as Exponents,
    MagnitudeCount as MagnitudeCount,
    ZeroCount as ZeroCount,
)
from ._grad_below import GradBelow as GradBelow
from ._grad_cosine import GradCosine as GradCosine
from ._grad_max import GradMax as GradMax
from ._grad_nonfinite import GradNonFinite as GradNonFinite
from ._grad_norm import GradNorm as GradNorm
from ._grad_rms import GradRMS as GradRMS
from ._grad_to_param import GradToParam as GradToParam
from ._grad_zeros import GradZeros as GradZeros
from ._moment import Moment as Moment, stored as stored
from ._moments import (
    Dot as Dot,
    LargestMagnitude as LargestMagnitude,
    NonFiniteCount as NonFiniteCount,
    Norm as Norm,
    SquaredNorm as SquaredNorm,
)
from ._noise_scale import NoiseScale as NoiseScale
from ._output_grad_rms import OutputGradRMS as OutputGradRMS
from ._param_norm import ParamNorm as ParamNorm
from ._quantity import Feed as Feed, Quantity as Quantity, ratio as ratio
from ._rank_grad_norm import RankGradNorm as RankGradNorm
from ._sample import Layout as Layout, Parts as Parts, layout as layout
from ._saturation import Saturation as Saturation
from ._suggested_loss_scale import SuggestedLossScale as SuggestedLossScale
from ._update_cosine import UpdateCosine as UpdateCosine
from ._update_ratio import UpdateRatio as UpdateRatio
from ._weight_gain import WeightGain as WeightGain

quantities: tuple[Quantity, ...] = (
    GradNorm(),
    GradRMS(),
    GradMax(),
    GradNonFinite(),
    GradZeros(),
    GradBelow("float16"),
    GradBelow("bfloat16"),
    GradBelow("float8_e4m3fn"),
    GradBelow("float8_e5m2"),
    SuggestedLossScale(),
    ParamNorm(),
    GradToParam(),
    ClipCoefficient(),
    GradCosine(),
    UpdateRatio(),
    UpdateCosine(),
    NoiseScale(),
    RankGradNorm(),
    OutputGradRMS(),
    ActivationRMS(),
    ActivationMean(),
    DeadUnits(),
    Saturation(),
    WeightGain(),
    ActivationGain(),
)
"""Every quantity there is, with its default options."""
