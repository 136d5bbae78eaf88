"""The rules of two published tools, to be asked about the same runs as gradlab's.

AUTOTRAINER (Zhang, Zhai, Ma, Shen, ICSE 2021) and DeepDiagnosis (Wardat, Cruz, Le,
Rajan, ICSE 2022), from their papers and the thresholds of their code, written anew.
Both look at the end of an epoch, which is `EPOCH` steps here. They look at one batch of
the training data that is always the same; here it is the last batch of the epoch.

Left out: AUTOTRAINER's rules of overfitting, which need validation data, and
DeepDiagnosis' out-of-range rule, which in torch is true of every classifier, whose last
layer gives logits. Its weight variance and learning rate are no rules of their own:
they choose the advice after a symptom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

EPOCH = 5
"""Steps in an epoch."""


@dataclass(frozen=True)
class Look:
    """What both tools look at, at the end of an epoch.

    Attributes:
        step: The step.
        epochs: How many there will be.
        loss: The mean loss of the epoch.
        accuracy: The mean accuracy of the epoch.
        norms: ‖g‖ of each weight matrix, the first layer first.
        means: The mean of g of each.
        magnitudes: The mean of |g| of each.
        weights: The mean of each weight matrix itself.
        zeros: The share of exact zeros among all gradients.
        finite: Whether all gradients and parameters are.
        outputs: The mean output of each layer.
        inactive: The share of outputs ≤ 0 of each ReLU.
        flat: The share of inputs beyond ±5 of each tanh and sigmoid.
    """

    step: int
    epochs: int
    loss: float
    accuracy: float
    norms: list[float]
    means: list[float]
    magnitudes: list[float]
    weights: list[float]
    zeros: float
    finite: bool
    outputs: list[float]
    inactive: list[float]
    flat: list[float]


class Looker:
    """Collects what a `Look` needs while a model trains.

    Args:
        model: The model.
        steps: How many steps there will be.

    Attributes:
        looking: Whether the outputs of this step are looked at.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.looking = False
        self._model, self._epochs = model, steps // EPOCH
        self._heard: list[tuple[float, float]] = []
        self._outputs: dict[nn.Module, float] = {}
        self._inactive: dict[nn.Module, float] = {}
        self._flat: dict[nn.Module, float] = {}
        leaves = [m for m in model.modules() if next(m.children(), None) is None]
        self._hooks: list[RemovableHandle] = [
            leaf.register_forward_hook(self._on_output) for leaf in leaves
        ]

    def remove(self) -> None:
        """Leave no hook behind."""
        for hook in self._hooks:
            hook.remove()

    def heard(self, loss: float, accuracy: float) -> None:
        """Take in the metrics of a batch.

        Args:
            loss: Its loss.
            accuracy: Its accuracy.
        """
        self._heard.append((loss, accuracy))

    @torch.no_grad()
    def _on_output(self, module: nn.Module, args: tuple[Tensor], out: object) -> None:
        if not self.looking or not isinstance(out, Tensor):
            return
        self._outputs[module] = float(out.float().mean())
        if isinstance(module, nn.ReLU):
            self._inactive[module] = float((out <= 0).float().mean())
        if isinstance(module, nn.Tanh | nn.Sigmoid):
            self._flat[module] = float((args[0].abs() >= 5).float().mean())

    @torch.no_grad()
    def look(self, step: int) -> Look:
        """What there is to see now, after the backward pass.

        Args:
            step: The step.
        """
        parameters = [p for p in self._model.parameters() if p.grad is not None]
        grads = [p.grad for p in parameters if p.grad is not None]
        kernels = [p for p in parameters if p.ndim > 1]
        of_kernels = [p.grad for p in kernels if p.grad is not None]
        entries = sum(g.numel() for g in grads)
        losses, accuracies = zip(*self._heard, strict=True)
        self._heard = []
        return Look(
            step,
            self._epochs,
            sum(losses) / len(losses),
            sum(accuracies) / len(accuracies),
            [float(g.norm()) for g in of_kernels],
            [float(g.mean()) for g in of_kernels],
            [float(g.abs().mean()) for g in of_kernels],
            [float(p.mean()) for p in kernels],
            sum(float((g == 0).sum()) for g in grads) / max(1, entries),
            all(bool(t.isfinite().all()) for t in (*grads, *parameters)),
            list(self._outputs.values()),
            list(self._inactive.values()),
            list(self._flat.values()),
        )


Looks = Sequence[Look]


def _poor(looks: Looks) -> bool:
    """AUTOTRAINER judges gradients only of a run that does badly.

    That is when accuracy never reached 0.7, or never gained 0.01 in an epoch, at a
    check, every third epoch, from 30 % of the training on.
    """
    if len(looks) % 3 != 1 or len(looks) < 0.3 * looks[-1].epochs:
        return False
    accuracies = [look.accuracy for look in looks]
    return max(accuracies) < 0.7 or _slow(accuracies)


def _slow(accuracies: list[float]) -> bool:
    gains = [b - a for a, b in pairwise(accuracies)]
    return max(gains, default=0.0) < 0.01


def _checked(looks: Looks) -> Looks:
    return looks[::3]


def autotrainer_explode(looks: Looks) -> bool:
    """NaN or a loss of 1e5; in a poor run, ‖g‖ of the first weight over the last > 70.

    Args:
        looks: All of the run so far.
    """
    last = looks[-1]
    if len(looks) % 3 == 1 and (not last.finite or not last.loss < 1e5):
        return True
    hits = [one.norms[0] > 70 * one.norms[-1] for one in _checked(looks) if one.norms]
    return _poor(looks) and any(hits)


def autotrainer_vanish(looks: Looks) -> bool:
    """In a poor run, ‖g‖ of the first weight < 1e-4, and < 1e-3 of the last one's.

    Args:
        looks: All of the run so far.
    """
    hits = [
        one.norms[0] < 1e-3 * one.norms[-1] and one.norms[0] < 1e-4
        for one in _checked(looks)
        if one.norms
    ]
    return _poor(looks) and any(hits)


def autotrainer_dying_relu(looks: Looks) -> bool:
    """In a poor run, 70 % of all entries of the gradient are exactly zero.

    Args:
        looks: All of the run so far.
    """
    return _poor(looks) and any(one.zeros >= 0.7 for one in _checked(looks))


def autotrainer_not_converging(looks: Looks) -> bool:
    """No epoch gained 0.01 of accuracy.

    Args:
        looks: All of the run so far.
    """
    return _poor(looks) and _slow([look.accuracy for look in looks])


def autotrainer_unstable(looks: Looks) -> bool:
    """In a run that is not poor, accuracy swings by 0.03 in a fifth of the epochs.

    Args:
        looks: All of the run so far.
    """
    if len(looks) % 3 != 1 or len(looks) < 0.3 * looks[-1].epochs or _poor(looks):
        return False
    a = [look.accuracy for look in looks]
    inner = range(1, len(a) - 1)
    highs = [a[i] for i in inner if a[i] >= a[i - 1] and a[i] >= a[i + 1]]
    lows = [a[i] for i in inner if a[i] <= a[i - 1] and a[i] <= a[i + 1]]
    swings = sum(h - w >= 0.03 for h, w in zip(highs, lows, strict=False))
    return swings >= max(1, 0.2 * len(a))


def deepdiagnosis_numerical_error(looks: Looks) -> bool:
    """The mean of an output, a weight or its gradient is NaN, infinite or zero.

    Args:
        looks: All of the run so far.
    """
    last = looks[-1]
    numbers = [*last.outputs, *last.weights, *last.means]
    return any(n == 0 or not math.isfinite(n) for n in numbers)


def deepdiagnosis_dead_node(looks: Looks) -> bool:
    """In the last epoch 70 % of the outputs of a ReLU are zero.

    Args:
        looks: All of the run so far.
    """
    last = looks[-1]
    return len(looks) == last.epochs and any(n >= 0.7 for n in last.inactive)


def deepdiagnosis_saturated(looks: Looks) -> bool:
    """Every fifth epoch: half of the inputs of a tanh or a sigmoid are beyond ±5.

    Args:
        looks: All of the run so far.
    """
    return len(looks) % 5 == 0 and any(n > 0.5 for n in looks[-1].flat)


def deepdiagnosis_vanishing(looks: Looks) -> bool:
    """The mean of |g| of a weight is below 1e-7.

    Args:
        looks: All of the run so far.
    """
    return any(n < 1e-7 for n in looks[-1].magnitudes)


def deepdiagnosis_unchanged(looks: Looks) -> bool:
    """Every fifth epoch: a mean output, weight or gradient was the same in all five.

    Args:
        looks: All of the run so far.
    """
    if len(looks) % 5:
        return False
    five = [[*one.outputs[:-1], *one.weights, *one.means] for one in looks[-5:]]
    if len({len(one) for one in five}) > 1:
        return False
    return any(len(set(column)) == 1 for column in zip(*five, strict=True))


def deepdiagnosis_loss(looks: Looks) -> bool:
    """The loss is NaN, or was the same in five epochs; the accuracy in twenty.

    Args:
        looks: All of the run so far.
    """
    losses = [look.loss for look in looks[-5:]]
    accuracies = [look.accuracy for look in looks[-20:]]
    stuck = len(looks) % 5 == 0 and len(set(losses)) == 1
    stuck |= len(looks) % 20 == 0 and len(set(accuracies)) == 1
    return stuck or not math.isfinite(losses[-1])


Rule = Callable[[Looks], bool]

TOOLS: dict[str, tuple[tuple[Rule, frozenset[str]], ...]] = {
    "AUTOTRAINER": (
        (autotrainer_dying_relu, frozenset({"dead_units"})),
        (
            autotrainer_explode,
            frozenset({"exploding", "exploding_activations", "sudden_growth"})
            | {"non_finite", "update_too_large"},
        ),
        (autotrainer_vanish, frozenset({"vanishing", "underflow"})),
        (
            autotrainer_not_converging,
            frozenset({"update_too_small", "noise_dominated", "clipping_always_on"}),
        ),
        (autotrainer_unstable, frozenset({"update_too_large", "sudden_growth"})),
    ),
    "DeepDiagnosis": (
        (deepdiagnosis_numerical_error, frozenset({"non_finite", "dead_units"})),
        (deepdiagnosis_dead_node, frozenset({"dead_units"})),
        (deepdiagnosis_saturated, frozenset({"saturated_units"})),
        (
            deepdiagnosis_unchanged,
            frozenset({"dead_units", "disconnected", "update_too_small"}),
        ),
        (deepdiagnosis_loss, frozenset({"non_finite", "update_too_small"})),
        (deepdiagnosis_vanishing, frozenset({"vanishing", "underflow"})),
    ),
}
"""The rules of each tool in its own order, and the codes of gradlab's pathologies that
a rule is counted as: the widest reading, so that it is right wherever one of them is.
"""


def said(looks: Looks) -> dict[str, tuple[tuple[str, int], ...]]:
    """What each tool says of a run: rules in the order in which they speak, and when.

    Args:
        looks: The whole run.
    """
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for tool, rules in TOOLS.items():
        spoken: dict[str, int] = {}
        for n in range(1, len(looks) + 1):
            for rule, _ in rules:
                if rule.__name__ not in spoken and rule(looks[:n]):
                    spoken[rule.__name__] = looks[n - 1].step
        found[tool] = tuple(spoken.items())
    return found
