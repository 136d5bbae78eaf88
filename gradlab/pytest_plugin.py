"""The pytest plugin: the fixture `gradcheck`, which fails a test with the report.

Installing gradlab registers it. It imports no torch until a test calls the fixture.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from gradlab import Report

LEVELS = ("value", "contract", "full")


class GradCheck(Protocol):
    """What the fixture `gradcheck` is: `gradlab.gradcheck` that fails the test."""

    def __call__(
        self,
        fn: Any,
        inputs: Any,
        reference: Callable[..., Any] | None = None,
        level: Any = None,
        **options: Any,
    ) -> Report:
        """Checks, and returns the report if it is `ok`."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--gradlab-level` and the ini option `gradlab_level`."""
    parser.getgroup("gradlab").addoption(
        "--gradlab-level",
        choices=LEVELS,
        help="how much the fixture gradcheck checks, unless a test says it: value, "
        "contract or full (default: ini gradlab_level, else full)",
    )
    parser.addini("gradlab_level", "how much the fixture gradcheck checks", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Refuses an ini value that is no level, before any test runs."""
    level = config.getini("gradlab_level")
    if level and level not in LEVELS:
        raise pytest.UsageError(
            f"gradlab_level must be one of {', '.join(LEVELS)}, got {level!r}"
        )


@pytest.fixture
def gradcheck(pytestconfig: pytest.Config) -> GradCheck:
    """`gradlab.gradcheck(fn, inputs, reference=None, level=None, **options)`.

    Returns the report. Where it is not `ok`, the test fails, and the report is all that
    is shown. The level is the one of `--gradlab-level` unless the test gives one.
    """
    default = pytestconfig.getoption("gradlab_level")
    default = default or pytestconfig.getini("gradlab_level") or "full"

    def check(
        fn: Any,
        inputs: Any,
        reference: Callable[..., Any] | None = None,
        level: Any = None,
        **options: Any,
    ) -> Report:
        __tracebackhide__ = True
        import gradlab

        report = gradlab.gradcheck(fn, inputs, reference, level or default, **options)
        if not report.ok:
            pytest.fail(f"{report}\n\n{_line_of(sys._getframe(1))}", pytrace=False)
        return report

    return check


def _line_of(frame: Any) -> str:
    """File, line and source of the call, so that an editor can jump there."""
    file, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, line).strip()
    with contextlib.suppress(ValueError):  # another drive
        file = os.path.relpath(file)
    return f"{file}:{line}: {source}"
