"""Watches a training loop of plain torch."""

from ._monitor import Monitor as Monitor

__all__ = ["Monitor"]
