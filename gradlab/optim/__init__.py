"""The update rule: optimizers written as the equations they are."""

from ._adam import Adam as Adam
from ._adamw import AdamW as AdamW
from ._bucket import Bucket as Bucket
from ._optimizer import Optimizer as Optimizer
from ._rmsprop import RMSprop as RMSprop
from ._sgd import SGD as SGD

__all__ = ["SGD", "RMSprop", "Adam", "AdamW", "Optimizer", "Bucket"]
