"""Words and picture follow the numbers, also where the numbers are awkward."""

from pathlib import Path

import numpy as np
import pytest

from experiments._depth_picture import draw_depth
from experiments._depth_profile import DepthProfile
from experiments._depth_report import sentence, title


def profile(*start: float, accuracy: float | None = 0.5) -> DepthProfile:
    norms = np.array(start)
    return DepthProfile("Tanh", "He", norms, norms / 2, 0, 9, accuracy, 0.1)


@pytest.mark.parametrize(
    ("ratio", "finding"),
    [
        (1e-9, "vanishes"),
        (1e-3, "vanishes"),
        (1.1e-3, "shrinks towards the input"),
        (0.099, "shrinks towards the input"),
        (0.1, "reaches the input"),
        (1.0, "reaches the input"),
        (10.0, "reaches the input"),
        (11.0, "grows towards the input"),
        (np.nan, "is not finite, or is zero, at an end of the network"),
        (np.inf, "is not finite, or is zero, at an end of the network"),
    ],
)
def test_finding(ratio: float, finding: str) -> None:
    assert profile(ratio, 0.5, 1.0).finding == finding
    assert finding in sentence([profile(ratio, 0.5, 1.0)])


def test_a_last_layer_without_gradient() -> None:
    assert "is zero" in profile(1.0, 0.0).finding
    assert "is zero" in profile(0.0, 0.0).finding


def test_sentence() -> None:
    assert sentence([profile(2e-4, 1.0), profile(0.3, 1.0, accuracy=None)]) == (
        "With Tanh and He weights the gradient vanishes: the first layer's norm is "
        "2.0e-04 of the last layer's at step 0, and 2.0e-04 of it at step 9; the "
        "network ends at 50.0% validation accuracy, where guessing gives 10.0%. With "
        "Tanh and He weights the gradient reaches the input: the first layer's norm is "
        "0.3 of the last layer's at step 0, and 0.3 of it at step 9."
    )
    assert title([profile(1e-4, 1.0), profile(1.0, 1.0)]) == (
        "The gradient vanishes with Tanh, and reaches the input with Tanh"
    )


@pytest.mark.parametrize(
    "norms",
    [(1.0,), (0.0, 0.0, 0.0), (0.0, 1e-40, 1.0), (np.nan, np.inf, 1.0), (1.0,) * 40],
    ids=["one layer", "zero", "underflow", "not finite", "deep"],
)
def test_picture_of_awkward_numbers(norms: tuple[float, ...], tmp_path: Path) -> None:
    draw_depth([profile(*norms), profile(*norms)], tmp_path / "picture")
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_picture_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw_depth([profile(0.1, 1.0)], tmp_path / name / "picture")
    for suffix in ("svg", "png"):
        a, b = (tmp_path / name / f"picture.{suffix}" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()
