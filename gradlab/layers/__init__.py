"""Layers with an explicit backward pass, beside their references; drop-in for torch.nn.

Every `_x.py` has the functional `x`, the Module `X`, the reference `x_reference` and an
`opinfo`. To add one: the file, its line here, and `tests/layers/test_x.py` for what is
special about it; the conformance suite and the benchmark find the rest.
"""

from __future__ import annotations

from gradlab._opinfo import OpInfo

from ._conv2d import Conv2d as Conv2d, conv2d as conv2d
from ._cross_entropy import (
    CrossEntropyLoss as CrossEntropyLoss,
    cross_entropy as cross_entropy,
)
from ._gelu import GELU as GELU, gelu as gelu
from ._layer_norm import LayerNorm as LayerNorm, layer_norm as layer_norm
from ._linear import Linear as Linear, linear as linear
from ._log_softmax import LogSoftmax as LogSoftmax, log_softmax as log_softmax
from ._max_pool2d import MaxPool2d as MaxPool2d, max_pool2d as max_pool2d
from ._mse_loss import MSELoss as MSELoss, mse_loss as mse_loss
from ._relu import ReLU as ReLU, relu as relu
from ._sigmoid import Sigmoid as Sigmoid, sigmoid as sigmoid
from ._softmax import Softmax as Softmax, softmax as softmax
from ._tanh import Tanh as Tanh, tanh as tanh

opinfos: tuple[OpInfo, ...] = tuple(
    module.opinfo for module in list(vars().values()) if hasattr(module, "opinfo")
)
"""Every op of this folder, in the order of the lines above."""
