"""Layers with an explicit backward pass, beside their references; drop-in for torch.nn.

Every `_x.py` has the functional `x`, the Module `X`, the reference `x_reference` and an
`opinfo`. To add one: the file, its line here, and `tests/layers/test_x.py` for what is
special about it; the conformance suite and the benchmark find the rest.
"""

from __future__ import annotations

from gradlab._opinfo import OpInfo

from ._linear import Linear as Linear, linear as linear

opinfos: tuple[OpInfo, ...] = tuple(
    module.opinfo for module in list(vars().values()) if hasattr(module, "opinfo")
)
"""Every op of this folder, in the order of the lines above."""
