"""What the README says is run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", CODE, ids=lambda code: code.split("\n")[0])
@pytest.mark.filterwarnings("ignore:.*GPU available.*")
def test_code(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_examples_of_the_first_screen_are_there() -> None:
    assert "gradlab.Function" in CODE[0]
    assert "gradlab.gradcheck" in CODE[1]
    assert "gradlab.Monitor" in CODE[2]


def test_every_command_and_file_exists() -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    assert set(re.findall(r"\bmake ([a-z-]+)\b", README)) <= targets
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"(?:configs|gradlab)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path
