"""Studies of backpropagation: each claim a config, a run, a number and a picture.

The names below are the parts a config names; they are loaded on first use, so that
`import experiments` does not wait for Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._classifier import Classifier as Classifier
    from ._digits import Digits as Digits
    from ._fashion_mnist import FashionMNIST as FashionMNIST
    from ._lecun_normal import lecun_normal_ as lecun_normal_

_HOME = {
    "Classifier": "._classifier",
    "Digits": "._digits",
    "FashionMNIST": "._fashion_mnist",
    "lecun_normal_": "._lecun_normal",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'experiments' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
