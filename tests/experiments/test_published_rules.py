import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from experiments.bench import _published_rules as published
from experiments.bench._published_rules import Look, Rule, said

HEALTHY = Look(
    step=4,
    epochs=12,
    loss=1.0,
    accuracy=0.5,
    norms=[1.0, 2.0],
    means=[0.1, 0.2],
    magnitudes=[0.3, 0.4],
    weights=[0.1, -0.1],
    zeros=0.1,
    finite=True,
    outputs=[0.5, 0.25],
    inactive=[0.5],
    flat=[0.1],
)


def run(accuracies: Sequence[float], **changes: object) -> list[Look]:
    """An epoch an accuracy, and nothing else ever the same in two of them."""
    looks: list[Look] = []
    for i, accuracy in enumerate(accuracies):
        tick = 1 + 0.001 * i
        moving = replace(
            HEALTHY,
            step=5 * i + 4,
            accuracy=accuracy,
            loss=1 / (i + 1),
            means=[n * tick for n in HEALTHY.means],
            weights=[n * tick for n in HEALTHY.weights],
            outputs=[n * tick for n in HEALTHY.outputs],
        )
        looks.append(replace(moving, **changes))
    return looks


LEARNS = [0.3 + 0.06 * i for i in range(12)]
POOR = [0.3 + 0.02 * i for i in range(12)]
STUCK = [0.2] * 12
GOOD = [0.72 + 0.02 * i for i in range(12)]


def first_step(rule: Rule, looks: list[Look]) -> int | None:
    spoken = dict(pair for tool in said(looks).values() for pair in tool)
    return spoken.get(rule.__name__)


def test_nothing_is_said_of_a_run_that_learns() -> None:
    assert said(run(LEARNS)) == {"AUTOTRAINER": (), "DeepDiagnosis": ()}


VANISHED = {"norms": [1e-5, 1.0]}
EXPLODED = {"norms": [71.0, 1.0]}


@pytest.mark.parametrize(
    ("rule", "accuracies", "changes", "step"),
    [
        # From 30 % of the epochs on, at every third: the 4th of 12 is the first.
        (published.autotrainer_vanish, POOR, VANISHED, 19),
        (published.autotrainer_vanish, GOOD, VANISHED, None),
        (published.autotrainer_vanish, POOR, {"norms": [2e-4, 1.0]}, None),
        (published.autotrainer_explode, POOR, EXPLODED, 19),
        (published.autotrainer_explode, LEARNS, {"finite": False}, 4),
        (published.autotrainer_explode, POOR, {"norms": [69.0, 1.0]}, None),
        (published.autotrainer_dying_relu, POOR, {"zeros": 0.7}, 19),
        (published.autotrainer_not_converging, STUCK, {}, 19),
        (published.autotrainer_not_converging, POOR, {}, None),
        (published.autotrainer_unstable, [0.9, 0.8] * 6, {}, 19),
        (published.deepdiagnosis_numerical_error, LEARNS, {"outputs": [0.0]}, 4),
        (published.deepdiagnosis_numerical_error, LEARNS, {"means": [math.nan]}, 4),
        (published.deepdiagnosis_dead_node, LEARNS, {"inactive": [0.1, 0.7]}, 59),
        (published.deepdiagnosis_saturated, LEARNS, {"flat": [0.6]}, 24),
        (published.deepdiagnosis_vanishing, LEARNS, {"magnitudes": [1e-8, 1.0]}, 4),
        (published.deepdiagnosis_unchanged, LEARNS, {"weights": [0.3, 0.2]}, 24),
        (published.deepdiagnosis_loss, LEARNS, {"loss": 1.5}, 24),
        (published.deepdiagnosis_loss, LEARNS, {"loss": math.nan}, 4),
    ],
)
def test_speaks_where_its_paper_says(
    rule: Rule, accuracies: list[float], changes: dict[str, object], step: int | None
) -> None:
    assert first_step(rule, run(accuracies, **changes)) == step
