import pytest
import torch
from torch import nn

from gradlab import Monitor
from gradlab.pathologies import Finding, Vanishing
from gradlab.quantities import ActivationGain, GradRMS, OutputGradRMS, WeightGain


class Kept:
    """A sink that keeps findings."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def __call__(self, snapshot: object) -> None:
        pass

    def finding(self, finding: Finding) -> None:
        self.found.append(finding)


def vanishing(activation: type[nn.Module], gain: float, watched: bool) -> Finding:
    torch.manual_seed(0)
    blocks = [m for _ in range(10) for m in (nn.Linear(24, 24), activation())]
    model = nn.Sequential(*blocks, nn.Linear(24, 1))
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=gain * 24**-0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    gains = [OutputGradRMS(), WeightGain(), ActivationGain()] if watched else []
    kept = Kept()
    with Monitor(
        model,
        optimizer,
        quantities=[GradRMS(), *gains],
        pathologies=[Vanishing()],
        sinks=[kept],
    ):
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.randn(32, 24)).square().mean().backward()
            optimizer.step()
    return kept.found[0]


@pytest.mark.parametrize(
    ("activation", "gain", "guilty"),
    [(nn.Sigmoid, 1.0, "the derivatives"), (nn.Tanh, 0.2, "the weights")],
)
def test_the_guilty_factor_is_the_first_cause(
    activation: type[nn.Module], gain: float, guilty: str
) -> None:
    finding = vanishing(activation, gain, watched=True)
    assert finding.causes[0].startswith(guilty)
    evidence = finding.evidence
    of_activations = evidence["by_activations"]
    if guilty == "the weights":
        assert evidence["by_weights"] < 1e-4 < of_activations
    else:
        assert of_activations < 1e-4 < evidence["by_weights"]


def test_without_gains_a_finding_stays_as_it_is() -> None:
    finding = vanishing(nn.Sigmoid, 1.0, watched=False)
    assert "by_weights" not in finding.evidence
