"""Watches a Lightning run: the only room that imports Lightning."""

from ._gradient_monitor import GradientMonitor as GradientMonitor

__all__ = ["GradientMonitor"]
