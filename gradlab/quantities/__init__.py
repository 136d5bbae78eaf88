"""What is measured of a gradient: one quantity, one file."""

from ._grad_norm import GradNorm as GradNorm
from ._quantity import Quantity as Quantity

__all__ = ["GradNorm", "Quantity"]
