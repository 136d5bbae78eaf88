"""The package as its users meet it: names, import cost, command line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gradlab


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_public_name_resolves_and_is_the_one_that_type_checkers_see() -> None:
    tree = ast.parse(Path(gradlab.__file__).read_text())
    declared = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert declared - set(dir(gradlab)) == set()
    for name in dir(gradlab):
        assert getattr(gradlab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Monitr'"):
        gradlab.Monitr  # noqa: B018


def test_importing_gradlab_and_its_torch_rooms_imports_nothing_heavier() -> None:
    code = (
        "import sys, gradlab; assert 'torch' not in sys.modules;"
        "gradlab.layers, gradlab.optim, gradlab.Monitor, gradlab.Function;"
        "heavy = {'pytorch_lightning', 'tensorboard', 'matplotlib', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_the_command_line_does_not_wait_for_torch(argument: str) -> None:
    code = (
        "import sys, runpy; sys.argv = ['gradlab', sys.argv[1]]\n"
        "try: runpy.run_module('gradlab', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as exit: assert not exit.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = python("-c", code, argument)
    assert done.returncode == 0, done.stderr
    assert "gradlab" in done.stdout


def test_a_mistake_on_the_command_line_is_one_message() -> None:
    done = python("-m", "gradlab", "chekc")
    assert done.returncode == 2
    assert "invalid choice: 'chekc'" in done.stderr
    assert "Traceback" not in done.stderr
