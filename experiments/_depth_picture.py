"""The picture of a study of depth: gradient norm against layer, start and end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ._depth_profile import DepthProfile
from ._depth_report import note, title

# Vermilion and blue of Okabe and Ito: told apart by every kind of colour vision.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_INK, _GREY = "#222222", "#6B6B6B"


def draw_depth(profiles: Sequence[DepthProfile], stem: Path) -> None:
    """Writes `<stem>.png` and `<stem>.svg`, the start solid and the end dashed.

    Args:
        profiles: one a network.
        stem: where to write, less the suffix.
    """
    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "svg.hashsalt": stem.name,
    }
    with rc_context(style):
        figure = Figure(figsize=(8.6, 5.0), dpi=160, facecolor="white")
        axes = figure.add_axes((0.09, 0.12, 0.685, 0.715))
        labels = [
            label
            for profile, colour in zip(profiles, _COLOURS, strict=False)
            for label in _draw(axes, profile, colour)
        ]
        _dress(axes, len(profiles[0].start))
        _label(axes, labels)
        figure.text(
            0.02, 0.945, title(profiles), fontsize=13, fontweight="bold", color=_INK
        )
        figure.text(0.02, 0.893, note(profiles), fontsize=10, color=_GREY)
        figure.savefig(stem.with_suffix(".png"))
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


_Label = tuple[float, str, str, str]
"""Height in the data, text, colour, weight."""


def _draw(axes: Axes, profile: DepthProfile, colour: str) -> list[_Label]:
    layers = np.arange(1, len(profile.start) + 1)
    start, end = (np.where(n > 0, n, np.nan) for n in (profile.start, profile.end))
    axes.plot(layers, end, "--o", color=colour, lw=1.4, ms=4, mfc="white")
    axes.plot(layers, start, "-o", color=colour, lw=2.4, ms=5)
    return [
        (start[-1], f"{profile.label}, start", colour, "bold"),
        (end[-1], f"{profile.label}, end", colour, "normal"),
    ]


def _dress(axes: Axes, depth: int) -> None:
    axes.set_yscale("log")
    axes.set_xlim(0.7, depth + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    axes.yaxis.set_major_locator(LogLocator(numticks=20))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#E4E4E4", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", which="both", length=0, colors=_GREY)
    axes.tick_params(axis="x", colors=_GREY)
    axes.set_xlabel("layer (1 is nearest the input)", color=_INK)
    axes.set_ylabel("gradient norm ‖∂loss/∂(weight, bias)‖₂", color=_INK)


def _label(axes: Axes, labels: list[_Label]) -> None:
    """Names each line at its right end, moved up or down where two would overlap."""
    low, high = np.log10(axes.get_ylim())
    gap, floor = 0.05 * (high - low), -np.inf
    for value, text, colour, weight in sorted(labels):
        if not np.isfinite(value):
            continue
        floor = max(np.log10(value), floor + gap)
        axes.annotate(
            text,
            xy=(axes.get_xlim()[1], 10**floor),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight=weight,
            va="center",
            annotation_clip=False,
        )
