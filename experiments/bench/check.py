"""The gradient checker against torch's own: what each finds, how long each takes.

Three parts, all in float64 on one thread. `bugs`: every seeded bug and its healthy twin
through gradlab, four ways to call `torch.autograd.gradcheck`, and the test many people
write, `out.sum().backward()` against a reference. `speed`: layers of real sizes, as the
ratio of slow gradcheck's time to gradlab's in the same run, the median of the rounds.
`power`: one corrupted gradient at a time, at those sizes.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.autograd import gradcheck as torch_gradcheck, gradgradcheck

import gradlab
from gradlab._opinfo import make_tensors

from ._layers_to_check import LARGE, LAYERS, SMALL, LayerToCheck
from ._subprocess import survives
from .seeded_bugs import BUGS, SeededBug

Tool = Callable[[SeededBug, Callable[..., Any]], str]
"""What a tool says of a function: an empty string where it finds nothing."""


def by_gradlab(bug: SeededBug, fn: Callable[..., Any]) -> str:
    """`gradlab.gradcheck` with no reference: any verdict but correct.

    Args:
        bug: The bug, for its inputs.
        fn: Its wrong or its healthy function.
    """
    report = gradlab.gradcheck(
        fn,
        bug.inputs(make_tensors(torch.float64)),
        compile=bug.kind == "transform",
        isolate=bug.kind == "isolation",
        # A wrong one may never return; a healthy one is given the time it needs.
        timeout=60.0 if fn is bug.healthy else 5.0,
        memory_gib=2.0,
    )
    if report.verdict == "correct" and report.ok:
        return ""
    return str(report)


def _by_torch(check: Callable[..., bool], **options: Any) -> Tool:
    def tool(bug: SeededBug, fn: Callable[..., Any]) -> str:
        inputs = bug.inputs(make_tensors(torch.float64))
        try:
            check(fn, inputs, **options)
        except Exception as error:
            return str(error) or type(error).__name__
        return ""

    return tool


def by_sum(bug: SeededBug, fn: Callable[..., Any]) -> str:
    """`out.sum().backward()` against the healthy twin.

    Args:
        bug: The bug, for its inputs and the reference.
        fn: Its wrong or its healthy function.
    """
    grads = []
    for function in (fn, bug.healthy):
        inputs = bug.inputs(make_tensors(torch.float64))
        leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        try:
            outputs = function(*inputs)
            ys = outputs if isinstance(outputs, tuple) else (outputs,)
            total = sum(y.abs().sum() if y.is_complex() else y.sum() for y in ys)
            found = torch.autograd.grad(total, leaves, allow_unused=True)  # type: ignore[arg-type]
        except Exception as error:
            return str(error)
        grads.append(
            [
                torch.zeros_like(x) if g is None else g
                for x, g in zip(leaves, found, strict=True)
            ]
        )
    same = all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=True)
        for a, b in zip(*grads, strict=True)
    )
    return "" if same else "differs"


TOOLS: dict[str, Tool] = {
    "gradlab": by_gradlab,
    "slow": _by_torch(torch_gradcheck),
    "fast": _by_torch(torch_gradcheck, fast_mode=True),
    "all options": _by_torch(
        torch_gradcheck,
        check_batched_grad=True,
        check_forward_ad=False,
        check_undefined_grad=True,
    ),
    "gradgradcheck": _by_torch(gradgradcheck, gen_non_contig_grad_outputs=True),
    ".sum()": by_sum,
}
"""The columns: gradlab, torch's gradcheck, and the usual home-made test."""


def run_tool(name: str, bug: SeededBug, healthy: bool = False) -> str:
    """What a tool says of a bug, or of its healthy twin.

    Args:
        name: Which tool.
        bug: The bug.
        healthy: Whether to ask about the twin.

    Returns:
        The text of the findings; empty for none, or where the tool itself dies.
    """
    fn = bug.healthy if healthy else bug.wrong
    tool = TOOLS[name]
    if bug.kind == "isolation" and name != "gradlab" and not healthy:
        return "found" if survives(lambda: bool(tool(bug, fn)), seconds=5.0) else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tool(bug, fn)


def bugs(console: Console) -> bool:
    """Prints who finds which seeded bug.

    Args:
        console: Where to print.

    Returns:
        Whether every gate is met.
    """
    table = Table("kind", "bug", *TOOLS, title="seeded bugs: + found, · not found")
    found: Counter[tuple[str, str]] = Counter()
    sizes = Counter(bug.kind for bug in BUGS)
    alarms: Counter[str] = Counter()
    named, missed = 0, []
    with_cause = [b for b in BUGS if b.kind in ("value", "grad_output")]
    for bug in track(BUGS, "Seeded bugs", console=Console(stderr=True)):
        marks = []
        for name in TOOLS:
            said = run_tool(name, bug)
            found[name, bug.kind] += bool(said)
            alarms[name] += bool(run_tool(name, bug, healthy=True))
            marks.append("+" if said else "·")
            if name == "gradlab":
                named += bug in with_cause and names_the_cause(bug, said)
                missed += [] if said else [bug.name]
        table.add_row(bug.kind, bug.name, *marks)
    console.print(table)
    summary = Table("kind", "bugs", *TOOLS, title="bugs found")
    for kind, size in sizes.items():
        summary.add_row(kind, str(size), *(str(found[n, kind]) for n in TOOLS))
    totals = [str(sum(found[n, k] for k in sizes)) for n in TOOLS]
    summary.add_section()
    summary.add_row("all", str(len(BUGS)), *totals)
    summary.add_row("healthy twins", "", *(str(alarms[n]) for n in TOOLS))
    console.print(summary)
    share = named / max(len(with_cause), 1)
    print(f"gate: every bug found: {'met' if not missed else f'missed: {missed}'}")
    print(
        f"gate: exact cause for 75 % of the value bugs: {named} of {len(with_cause)}, "
        f"{share:.0%}"
    )
    print(f"gate: no finding above a note on a healthy twin: {alarms['gradlab']}")
    return not missed and share >= 0.75 and not alarms["gradlab"]


def names_the_cause(bug: SeededBug, said: str) -> bool:
    """Whether a diagnosis says what the bug's author says.

    Args:
        bug: The bug.
        said: The findings as text.
    """
    causes = re.findall(r"^ *cause  (.*(?:\n {9}.*)*)", said, re.MULTILINE)
    text = " ".join(" ".join(cause.split()) for cause in causes)
    return bool(text and bug.cause and re.search(bug.says, text, re.IGNORECASE))


def speed(console: Console, rounds: int) -> bool:
    """Prints gradlab's times beside slow gradcheck's.

    Args:
        console: Where to print.
        rounds: How often to interleave the two.

    Returns:
        Whether every gate is met.
    """
    table = Table(
        "layer",
        "slow gradcheck",
        "value level",
        "times faster",
        "full level",
        "times faster",
        title=f"float64, 1 thread, medians of {rounds} interleaved rounds",
    )
    met = True
    for layer in track(LAYERS, "Speed", console=Console(stderr=True)):
        times = _interleaved(layer, rounds, slow=True)
        value = _ratio(times["slow"], times["value"])
        full = _ratio(times["slow"], times["full"])
        met &= value >= 50 and full >= 15
        table.add_row(
            layer.name,
            f"{statistics.median(times['slow']):.2f} s",
            f"{1e3 * statistics.median(times['value']):.0f} ms",
            f"{value:.0f}x",
            f"{1e3 * statistics.median(times['full']):.0f} ms",
            f"{full:.0f}x",
        )
    for layer in (LARGE, SMALL):
        times = _interleaved(layer, 5, slow=layer is SMALL)
        seconds = {k: statistics.median(v) for k, v in times.items()}
        met &= seconds["full"] < (1.0 if layer is LARGE else 0.060)
        table.add_row(
            layer.name,
            f"{1e3 * seconds['slow']:.0f} ms" if layer is SMALL else "cannot run",
            f"{1e3 * seconds['value']:.0f} ms",
            "",
            f"{1e3 * seconds['full']:.0f} ms",
            "",
        )
    console.print(table)
    print(
        "gate: value 50x, full 15x, the large Conv2d under 1 s, the small input under "
        f"60 ms: {'met' if met else 'missed'}"
    )
    return met


def _interleaved(
    layer: LayerToCheck, rounds: int, slow: bool
) -> dict[str, list[float]]:
    torch.manual_seed(0)
    inputs = layer.inputs()
    runs: dict[str, Callable[[], Any]] = {
        "value": lambda: gradlab.gradcheck(layer.function, inputs, level="value"),
        "full": lambda: gradlab.gradcheck(layer.function, inputs, level="full"),
    }
    if slow:
        runs["slow"] = lambda: torch_gradcheck(layer.function.apply, inputs)
    for name in ("value", "full"):
        runs[name]()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def _ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def _one_entry(g: Tensor) -> Tensor:
    wrong = g.clone()
    wrong.view(-1)[g.numel() // 2] *= 1.5
    return wrong


def _first_row(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def corrupt(g: Tensor) -> Tensor:
        return torch.cat([change(g[:1]), g[1:]])

    return corrupt


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "sign": torch.neg,
    "x 1.01": lambda g: 1.01 * g,
    "x 2": lambda g: 2 * g,
    "one entry x 1.5": _one_entry,
    "one entry zero": lambda g: g * (torch.arange(g.numel()) != 3).view(g.shape),
    "rows swapped": lambda g: torch.cat([g[1:2], g[:1], g[2:]]),
    "last row zero": lambda g: torch.cat([g[:-1], torch.zeros_like(g[-1:])]),
    "first row x 0.9": _first_row(lambda row: 0.9 * row),
    "last channel x 1.1": lambda g: torch.cat([g[..., :-1], 1.1 * g[..., -1:]], -1),
    "shifted by one": lambda g: g.roll(1, -1),
    "plus a constant": lambda g: g + 0.01 * g.abs().max(),
}
"""What is done to the gradient of one input."""


def power(console: Console, seeds: int) -> bool:
    """Prints how many corrupted gradients are found at real sizes.

    Args:
        console: Where to print.
        seeds: How many random points and seeds.

    Returns:
        Whether all were found without a false alarm.
    """
    table = Table(
        "layer", "corruption found", "false alarms", title="power, value level"
    )
    met = True
    for layer in track(LAYERS, "Power", console=Console(stderr=True)):
        found = asked = alarms = 0
        for seed in range(seeds):
            torch.manual_seed(seed)
            inputs = layer.inputs()
            alarms += not _passes(layer.function, inputs, seed)
            for change in CORRUPTIONS.values():
                asked += 1
                found += not _passes(corrupted(layer, change), inputs, seed)
        met &= found == asked and not alarms
        table.add_row(layer.name, f"{found} of {asked}", str(alarms))
    console.print(table)
    print(f"gate: all corruptions found, no false alarm: {'met' if met else 'missed'}")
    return met


def corrupted(
    layer: LayerToCheck, change: Callable[[Tensor], Tensor]
) -> type[torch.autograd.Function]:
    """The layer with the gradient of its first input changed.

    Args:
        layer: The layer.
        change: What to do to the gradient.
    """
    right: Callable[..., Any] = layer.function.backward

    def backward(ctx: Any, *grads: Tensor) -> Any:
        first, *rest = right(ctx, *grads)
        return None if first is None else change(first), *rest

    name = f"Corrupted{layer.function.__name__}"
    return type(name, (layer.function,), {"backward": staticmethod(backward)})


def _passes(fn: Any, inputs: tuple[Tensor, ...], seed: int) -> bool:
    return gradlab.gradcheck(fn, inputs, level="value", seed=seed).ok


def main() -> None:
    """Runs the parts asked for; exits with 1 when a gate is missed."""
    parser = argparse.ArgumentParser("experiments.bench.check", description=__doc__)
    parts = ("bugs", "speed", "power")
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="for speed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="for power (%(default)s)")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {parts}")
    torch.set_num_threads(1)
    console = Console()
    console.width = max(console.width, 120)
    chosen = args.parts or parts
    met = [
        run()
        for part, run in {
            "bugs": lambda: bugs(console),
            "speed": lambda: speed(console, args.rounds),
            "power": lambda: power(console, args.seeds),
        }.items()
        if part in chosen
    ]
    raise SystemExit(not all(met))


if __name__ == "__main__":
    main()
