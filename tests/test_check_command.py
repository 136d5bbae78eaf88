"""`gradlab check` as its users meet it: reports, exit statuses, and one-line errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradlab.__main__ import main

MINE = """
import torch

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        print("printed by the forward")
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad_y):
        (x,) = ctx.saved_tensors
        return grad_y * 3 * x.conj()**2

class Half(Cube):
    @staticmethod
    def backward(ctx, grad_y):
        (x,) = ctx.saved_tensors
        return grad_y * 1.5 * x**2

class Dies(Cube):
    @staticmethod
    def backward(ctx, grad_y):
        import ctypes
        ctypes.string_at(0)

class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad_y):
        return grad_y

class Net(torch.nn.Module):
    def forward(self, x):
        return Cube.apply(x)

class Sized(torch.nn.Module):
    def __init__(self, size):
        super().__init__()

def scaled(x, index):
    return x * index

def batch():
    return {"x": torch.ones(3, requires_grad=True), "index": torch.arange(3)}

def cube(x):
    return x * x * x

def fails():
    raise RuntimeError("no data")

number = 3
"""
VALUE = ("--level", "value", "--no-isolate")


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import torch\n\nimport not_there\n")
    (tmp_path / "syntax.py").write_text("x = (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "broken", "syntax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("mine:Cube", "--shape", "3x4"),
        ("mine:Cube.apply", "--shape", "scalar", "--dtype", "complex64", "--seed", "7"),
        ("mine.py:Cube", "--shape", "1", "--reference", "mine:cube"),
        ("mine:Net", "--shape", "2x3"),
        ("mine:scaled", "--inputs", "mine:batch"),
        ("mine:scaled", "--shape", "2", "--shape", "2", "--dtype", "float32",
         "--dtype", "int64"),
        ("mine:Round", "--shape", "3", "--declared", "surrogate"),
        ("torch:sin", "--shape", "3"),
        ("gradlab.layers:tanh",),
    ],
)  # fmt: skip
def test_all_is_well(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments, *VALUE]) == 0
    said = capsys.readouterr()
    assert "level value" in said.out
    assert "printed by" not in said.out


@pytest.mark.parametrize("arguments", [("mine:Half",), ("mine:Round",)])
def test_what_is_not_well_exits_with_1(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments, "--shape", "3", *VALUE]) == 1
    assert "[matches_reference]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("mine:Cueb --shape 3", "there is no 'Cueb' in mine. Did you mean Cube?"),
        ("mien:Cube --shape 3", "there is no module mien .* Did you mean mine?"),
        ("mine:Cube.aply --shape 3", "no 'aply' in mine:Cube. Did you mean apply?"),
        ("gradlab.layer:gelu", r"no module gradlab.layer. Did you mean gradlab.layers"),
        ("gradlab.layers.gelu", "is no module: name it as gradlab.layers:gelu"),
        ("min.py:Cube --shape 3", "there is no file min.py. Did you mean mine.py?"),
        ("broken:f", r"importing broken raises ModuleNotFoundError: .*\(broken.py:3\)"),
        ("syntax:f", r"importing syntax raises SyntaxError: .*\(syntax.py:1\)"),
        ("mine", "a module without `opinfos`: say what .* as mine:Cube"),
        ("mine:number --shape 3", "must be a function, .*; it is a int"),
        ("mine:Sized --shape 3", "must need no arguments, .*missing 1 required"),
        ("mine:Cube", "inputs are missing: --shape 3x4"),
        ("mine:Cube --shape 3y", "lengths joined by x, as 3x4, or scalar; got '3y'"),
        ("mine:Cube --shape 3 --dtype flaot32", "got 'flaot32'. Did you mean float32"),
        ("mine:Cube --shape 3 --dtype float32 --dtype int64", "1 shapes, 2 dtypes"),
        ("mine:Cube --shape 3 --dtype int64", "integers have no gradient"),
        ("mine:Cube --shape 3 --inputs mine:batch", "exclude each other"),
        ("mine:Cube --inputs mine:fails", "raised RuntimeError: no data"),
        ("mine:Cube --inputs mine:number", "mine:number gave a int"),
        ("mine:scaled --shape 3", "raised TypeError"),
        ("mine:Cube --shape 3 --timeout 0", "timeout must be positive"),
        ("gradlab.layers --shape 3", "--shape is of no use with gradlab.layers"),
        (" --shape 3", "neither an importable name"),
    ],
)
def test_a_mistake_is_one_message_and_exits_with_2(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments.split(" "), "--level", "value"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    line, *more = [s for s in said.err.splitlines() if s[:10] != "printed by"]
    assert line.startswith("gradlab check: error: ")
    assert re.search(message, line), line
    assert len(more) <= 1


def gradlab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradlab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_crash_of_the_interpreter_is_a_report() -> None:
    done = gradlab("check", "mine:Dies", "--shape", "3", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert (report["verdict"], report["ok"]) == ("wrong", False)
    (finding,) = report["findings"]
    assert "SIGSEGV" in finding["message"]
    assert finding["where"].startswith("mine.py:")


def test_an_op_is_checked_at_all_its_sample_inputs() -> None:
    done = gradlab("check", "gradlab.layers:relu", "--level", "value")
    assert done.returncode == 0, done.stderr
    row, _, summary = done.stdout.splitlines()
    assert row.startswith("relu ")
    assert row.endswith("all correct")
    assert "1 op, " in summary


def test_a_module_of_ops_gives_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "gradlab.layers", "--json", *VALUE]) == 0
    documents = json.loads(capsys.readouterr().out)
    # Of a sample without entries nothing can be said, and nothing was found.
    empty = [d for d in documents if d["verdict"] == "inconclusive"]
    assert all(not d["findings"] for d in empty)
    assert {d["verdict"] for d in documents if d not in empty} == {"correct"}
    assert len({d["op"] for d in documents}) >= 12
    assert all(d["sample"] and d["ok"] for d in documents if d not in empty)


def test_nothing_is_proved_of_an_empty_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "mine:Net", "--shape", "0x3", *VALUE]) == 1
    assert "INCONCLUSIVE" in capsys.readouterr().out


def test_the_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("  gradlab check ") == 2
