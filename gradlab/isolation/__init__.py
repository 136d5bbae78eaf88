"""Gradient checks in a child process, so that what kills it becomes a finding."""

from ._isolated import isolated as isolated
