import pytest

from experiments.bench._planted import FAULTS
from experiments.bench._published_rules import TOOLS
from experiments.bench._scores import (
    MEANS,
    OURS,
    Run,
    missed_gates,
    of_rule,
    score,
    upper,
)
from experiments.bench._zoo import NETS
from experiments.bench.faults import jobs
from gradlab.pathologies import pathologies


def run(change: str, *said: tuple[str, int], faulty: bool = True) -> Run:
    by_tool = {OURS: said} | dict.fromkeys(TOOLS, ())
    return Run("net", change, faulty, 0, True, 0.5, by_tool)


RUNS = [
    run("dead_relu", ("dead_units", 12)),
    run("dead_relu", ("vanishing", 8), ("dead_units", 16)),
    run("dead_relu", ("update_too_small", 16)),  # true, and not the cause
    run("frozen_layer", ("disconnected", 32)),
    run("frozen_layer"),
]


def test_recall_first_cause_and_delay() -> None:
    found = score(RUNS, OURS)
    assert (found.runs, found.recall, found.first) == (5, 3 / 5, 2 / 5)
    # A layer that is frozen at step 20 is not late at step 32.
    assert found.steps == 12


def test_precision_counts_true_symptoms() -> None:
    assert of_rule(RUNS, OURS, "update_too_small").precision == 1
    assert of_rule(RUNS, OURS, "vanishing").precision == 0
    dead = of_rule(RUNS, OURS, "dead_units")
    assert (dead.expected, dead.recall, dead.spoke, dead.steps) == (3, 2 / 3, 2, 14)


@pytest.mark.parametrize(
    ("k", "n", "bound"),
    [(0, 300, 0.009936), (1, 100, 0.046558), (3, 50, 0.147840), (0, 1, 0.95)],
)
def test_upper_bounds_of_a_binomial_share(k: int, n: int, bound: float) -> None:
    assert upper(k, n) == pytest.approx(bound, rel=1e-3)


def test_gates() -> None:
    healthy = [run("plain", faulty=False) for _ in range(99)]
    good = [run("dead_relu", ("dead_units", 12))] * 9
    assert missed_gates([*healthy, *good]) == []
    one = run("plain", ("vanishing", 8), faulty=False)
    assert missed_gates([*healthy, one, *good]) == []
    assert missed_gates([*healthy, one, one, *good]) == [
        "vanishing spoke in 2 of 101 healthy runs, > 1 %"
    ]
    lost = [run("dead_relu", ("vanishing", 3)), run("dead_relu")]
    assert len(missed_gates([*healthy, *good, *lost])) == 2


def test_the_benchmark_is_as_large_as_it_says() -> None:
    chosen = jobs(seeds=3, controls=37, quick=False)
    faulty = [job for job in chosen if job.fault is not None]
    assert len(faulty) <= len(chosen) - len(faulty)
    nets = {f.name: sum(f.fits(net) for net in NETS) for f in FAULTS}
    assert sum(n >= 8 for n in nets.values()) >= 12
    assert min(nets.values()) >= 1
    for held_out in (False, True):
        half = {job.net for job in chosen if NETS[job.net].held_out == held_out}
        assert len(half) >= 8


def test_what_is_right_is_something_that_can_be_said() -> None:
    codes = {pathology.code for pathology in pathologies}
    for fault in FAULTS:
        assert fault.right
        assert codes.issuperset(fault.right | fault.also)
    for means in MEANS.values():
        assert codes.issuperset(means)
