"""The fixture `gradcheck`, in a pytest of its own that finds the plugin by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest
import torch

class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad_y):
        (x,) = ctx.saved_tensors
        return grad_y * x

def x():
    return torch.randn(3, dtype=torch.float64, requires_grad=True)

def test_right(gradcheck):
    report = gradcheck(torch.sin, x(), torch.sin)
    assert report.verdict == "correct"
    print("level is", report.level)

def test_wrong(gradcheck):
    gradcheck(Half, x())  # this line

def test_wrong_as_keywords(gradcheck):
    gradcheck(fn=Half, inputs=x(), level="value", isolate=True)
"""


def test_a_wrong_gradient_fails_with_the_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\ngradlab_level = full")  # the option wins
    done = pytester.runpytest_subprocess("-rP", "--gradlab-level", "value")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines([
        "Half: WRONG*",
        "*level value*",
        "*error: the gradient of x is not the derivative*",
        "*test_a_wrong_gradient_fails_with_the_report.py:*gradcheck(Half, x())  # thi*",
        "level is value",
    ])  # fmt: skip
    text = done.stdout.str()
    assert "Traceback" not in text
    assert "def check(" not in text


def test_the_ini_file_sets_the_level(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\ngradlab_level = value")
    arguments = ("-rP", "-k", "right", "--import-mode=importlib", "-n", "1")
    done = pytester.runpytest_subprocess(*arguments)
    done.stdout.fnmatch_lines(["level is value"])


def test_a_level_that_is_none_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradlab_level = all")
    done = pytester.runpytest_subprocess()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*gradlab_level must be one of value, contract, full*"])


def test_loading_the_plugin_does_not_wait_for_torch() -> None:
    code = "import sys, gradlab.pytest_plugin; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
