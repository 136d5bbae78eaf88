"""What a study of depth found, in words and in a table; all of it from the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from ._depth_profile import DepthProfile


def title(profiles: Sequence[DepthProfile]) -> str:
    """The finding in one line."""
    first, *rest = profiles
    others = "".join(f", and {p.finding} with {p.activation}" for p in rest)
    return f"The gradient {first.finding} with {first.activation}{others}"


def note(profiles: Sequence[DepthProfile]) -> str:
    """The numbers behind the title, and which steps they are of."""
    ratios = ", ".join(f"{_short(p.ratio)} with {p.activation}" for p in profiles)
    return (
        f"First layer's norm over the last layer's at the start: {ratios}. "
        f"Start: step {profiles[0].first_step}, end: step {profiles[0].last_step}."
    )


def sentence(profiles: Sequence[DepthProfile]) -> str:
    """What happened to each network, start and end."""
    return " ".join(map(_clause, profiles))


def table(profiles: Sequence[DepthProfile]) -> Table:
    """Every layer's gradient norm, start and end, the layer nearest the input first."""
    table = Table(title="Gradient norm of every layer", box=box.SIMPLE_HEAD)
    table.add_column("layer", no_wrap=True)
    for profile in profiles:
        for head in (
            f"{profile.label}\nstep {profile.first_step}",
            f"\nstep {profile.last_step}",
        ):
            # On a narrow terminal the names give way, not the numbers.
            table.add_column(head, justify="right", min_width=7)
    depth = len(profiles[0].start)
    ends = {0: "1 (input side)", depth - 1: f"{depth} (loss side)"}
    for k in range(depth):
        norms = (norms[k] for p in profiles for norms in (p.start, p.end))
        table.add_row(ends.get(k, str(k + 1)), *(f"{norm:.1e}" for norm in norms))
    table.add_section()
    ratios = (ratio for p in profiles for ratio in (p.ratio, p.end_ratio))
    table.add_row("first / last", *(f"{ratio:.1e}" for ratio in ratios), style="bold")
    return table


def _clause(profile: DepthProfile) -> str:
    clause = (
        f"With {profile.activation} and {profile.initialisation} weights the gradient "
        f"{profile.finding}: the first layer's norm is {_short(profile.ratio)} of the "
        f"last layer's at step {profile.first_step}, and {_short(profile.end_ratio)} "
        f"of it at step {profile.last_step}"
    )
    if profile.accuracy is None:
        return f"{clause}."
    return (
        f"{clause}; the network ends at {profile.accuracy:.1%} validation accuracy, "
        f"where guessing gives {profile.chance:.1%}."
    )


def _short(ratio: float) -> str:
    return f"{ratio:.2g}" if 0.01 <= ratio < 100 else f"{ratio:.1e}"
