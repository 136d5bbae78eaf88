import dataclasses
from collections.abc import Callable

import pytest
import torch

from gradlab import Snapshot
from gradlab.pathologies import DeadUnits, Finding, History, Pathology

Watch = Callable[[Pathology, str, str], list[Finding]]
Table = Callable[..., Snapshot]


CASES = [
    ("mlp_relu_4", "dead_relu", "2.bias"),
    ("mlp_relu_12", "dead_relu", "10.bias"),
    ("cnn", "dead_relu", "4.bias"),
    ("mlp_batch_norm", "dead_relu", "6.bias"),
    ("mlp_relu_12", "zero_layer", "10.bias"),
]


@pytest.mark.parametrize(("net", "fault", "layer"), CASES)
def test_dead_relus_are_found(watch: Watch, net: str, fault: str, layer: str) -> None:
    (finding,) = watch(DeadUnits(), net, fault)
    assert finding.step < 16
    assert finding.evidence["share_of_zeros"] == 1
    assert finding.confidence > 0.9
    assert layer in finding.layers


def test_some_silent_units_are_healthy(table: Table) -> None:
    history = History()
    for step in range(12):
        history.take(two(table, [0.6, 0.85], step))
    assert DeadUnits()(history) is None


def two(table: Table, zeros: list[float], step: int) -> Snapshot:
    """Shares of zeros of weights that have no biases, and a norm beside them."""
    one = table("grad_zeros", zeros, step, total=0.5)
    values = torch.cat([one.values, torch.ones_like(one.values)], 1)
    return dataclasses.replace(
        one,
        quantities=("grad_zeros", "grad_norm"),
        values=values,
        available=torch.ones_like(values, dtype=torch.bool),
    )
