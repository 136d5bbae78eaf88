"""What watching adds to a step of plain training."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Mapping

from gradlab.quantities import GradNorm, quantities

from ._nets import Training, gpt, small_tensors, vanishing
from ._pairs import Pairs, pairs, quartiles
from ._row import Measuring, Part, Row
from ._watches import Watch, histograms, lightning_norms, watch_gradlab

NORMS = "grad norms"
NORMS_AND_SCALARS = "grad norms, scalars too"
DEFAULT = "default set"
DEFAULT_AND_ACTIVATIONS = "default set, activations too"
EVERYTHING = "everything"
WITHIN = "everything, budget 2 %"
GRADLAB: dict[str, Watch] = {
    NORMS: watch_gradlab(quantities=[GradNorm()]),
    NORMS_AND_SCALARS: watch_gradlab("all", quantities=[GradNorm()]),
    DEFAULT: watch_gradlab(),
    DEFAULT_AND_ACTIVATIONS: watch_gradlab(activations=True),
    EVERYTHING: watch_gradlab(quantities=quantities),
    WITHIN: watch_gradlab(quantities=quantities, budget=0.02),
}
"""gradlab, into tensor events unless it says more."""
PEERS: dict[str, Watch] = {
    "Lightning's grad_norm and logger": lightning_norms,
    "histograms as wandb.watch": histograms,
}
SMALL_GATES = {NORMS: 0.12, NORMS_AND_SCALARS: 0.25}
GPT_GATES = {
    NORMS: 0.012,
    DEFAULT: 0.04,
    DEFAULT_AND_ACTIVATIONS: 0.04,
    EVERYTHING: 0.15,
}


def small(quick: bool) -> Measuring:
    """What watching adds to a step of 150 small tensors.

    Args:
        quick: Whether a rough figure will do.

    Yields:
        The share that is done.
    """
    seconds = 6.0 if quick else 90.0
    rows = yield from _rows(small_tensors, GRADLAB | PEERS, SMALL_GATES, seconds, 0.85)
    apart = {f"{NORMS}, of a vanishing gradient": GRADLAB[NORMS]}
    rows += yield from _rows(vanishing, apart, {}, 0.1 * seconds, 0.15, 0.85)
    title = (
        "a step of 150 small tensors: 75 x (Linear(64, 64), ReLU), 312,000 parameters, "
        "batch 48, SGD"
    )
    return Part(title, rows)


def transformer(quick: bool) -> Measuring:
    """What watching adds to a step of a GPT.

    Args:
        quick: Whether a rough figure will do.

    Yields:
        The share that is done.
    """
    seconds = 15.0 if quick else 140.0
    rows = yield from _rows(gpt, GRADLAB | PEERS, GPT_GATES, seconds)
    title = (
        "a step of a GPT: 12 blocks of width 200, 149 tensors, 5.9 million parameters, "
        "4 x 64 tokens, AdamW"
    )
    return Part(title, rows)


def _rows(
    build: Callable[[], Training],
    watches: Mapping[str, Watch],
    gates: Mapping[str, float],
    seconds: float,
    share: float = 1.0,
    done: float = 0.0,
) -> Generator[float, None, list[Row]]:
    """Times the watches; reports a share of the progress after what was done."""
    measuring = pairs(build, watches, gates, seconds)
    while True:
        try:
            yield done + share * next(measuring)
        except StopIteration as end:
            found: dict[str, Pairs] = end.value
            return [_row(name, one, gates.get(name)) for name, one in found.items()]


def _row(name: str, found: Pairs, gate: float | None) -> Row:
    shares = [100 * share for share in found.shares]
    return Row(
        name,
        statistics.median(shares),
        "%",
        quartiles(shares),
        None if gate is None else 100 * gate,
        note=f"{1e3 * statistics.median(found.unwatched):.2f} "
        f"+ {1e3 * found.added:.2f} ms; CPU time + {100 * found.added_cpu:.1f} %; "
        f"{len(shares)} rounds",
    )
