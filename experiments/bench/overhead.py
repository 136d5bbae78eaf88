"""What gradlab costs before it does anything: its import, its help, a Function call.

The first two are fresh processes, taken in turn with their peers: `import torch`, and a
bare `python`. The third is forward and backward of a Function of three numbers, against
`torch.autograd.Function` with the same methods. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from typing import Any

from ._timing import interleave, ratio

IMPORT_GATE, HELP_GATE = 1.1, 0.5


def calls() -> dict[str, list[float]]:
    """Times forward and backward of the same Function with either base class.

    Returns:
        Seconds for each round, by the name of the base.
    """
    import torch

    from gradlab import Function

    torch.set_num_threads(1)

    def twice(base: Any) -> Any:
        class Twice(base):
            generate_vmap_rule = True

            @staticmethod
            def forward(x: torch.Tensor) -> torch.Tensor:
                return x * 2

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
                ctx.save_for_backward(*inputs)

            @staticmethod
            def backward(ctx: Any, grad_y: torch.Tensor) -> torch.Tensor:
                return grad_y * 2

        return Twice

    torchs, ours = twice(torch.autograd.Function).apply, twice(Function).call
    x, v = torch.ones(3, requires_grad=True), torch.ones(3)
    ops = {"native": lambda x: x * 2, "torch": torchs, "gradlab": ours}
    steps = {
        name: lambda op=op: torch.autograd.grad(op(x), x, v) for name, op in ops.items()
    }
    return interleave(steps, repeats=300)


def main() -> None:
    """Runs the benchmark; exits with 1 when a gate is missed."""
    parser = argparse.ArgumentParser("experiments.bench.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    rounds = parser.parse_args().rounds

    def run(*arguments: str) -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    everything = "import torch, gradlab; gradlab.layers, gradlab.optim, gradlab.Monitor"
    imports = {
        "torch": lambda: run("-c", "import torch"),
        "gradlab": lambda: run("-c", everything),
    }
    commands = {
        "python": lambda: run("-c", "pass"),
        "help": lambda: run("-m", "gradlab", "--help"),
    }
    times = interleave(imports, rounds) | interleave(commands, rounds)
    share = ratio(times["gradlab"], times["torch"])
    wait, bare = (statistics.median(times[name]) for name in ("help", "python"))
    print(f"import torch and gradlab / torch: {share:.3f} (at most {IMPORT_GATE})")
    print(f"gradlab --help: {wait:.3f} s (under {HELP_GATE}); bare python {bare:.3f} s")
    micro = {name: 1e6 * statistics.median(t) for name, t in calls().items()}
    print(
        f"a Function, forward and backward: {micro['gradlab']:.1f} µs with gradlab's "
        f"base, {micro['torch']:.1f} µs with torch's; a native op {micro['native']:.1f}"
    )
    raise SystemExit(share > IMPORT_GATE or wait >= HELP_GATE)


if __name__ == "__main__":
    main()
