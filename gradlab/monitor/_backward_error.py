"""How far an explicit backward is from autograd of its reference, at real numbers.

With g the explicit gradient of one input in the dtype of the training, r autograd of
the reference in float64 at the same inputs and the same ȳ, and |·| the largest entry:

error   |g − r| / |r|
cosine  ⟨g, r⟩ / (‖g‖ ‖r‖)
ratio   |g − r| / (|r' − r| + |Δr| + ε |r|)

r' is autograd of the reference in the dtype of the training, or of torch's own op where
that is further off; Δr is how r moves when inputs and ȳ are off by one rounding ε. No
backward in that dtype can do much better than the two. An entry does not count where it
may be anything: at the kink of a ReLU or a tie of maxima, where r jumps however little
the inputs move. Where |g − r| is a few ε |r|, which is the rule, nothing else is run,
and the ratio is that to ε |r| alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._replay import Slice, to_wide

_CLOSE = 4.0
_TINY = 1e-9
_JUMP = 1e-4
_JUMP_OF_ROUNDING = 0.05
_EXCUSED = 64.0


class BackwardError(NamedTuple):
    """The worst of the inputs of one call.

    Attributes:
        error: The relative error.
        cosine: Of the angle between the two gradients.
        ratio: The error in units of what rounding explains.
    """

    error: float
    cosine: float
    ratio: float


class NotComparableError(Exception):
    """Why a call cannot be compared."""


def backward_error(
    explicit: Callable[..., Any],
    reference: Callable[..., Any],
    call: Slice,
    torch_op: Callable[..., Any] | None = None,
) -> BackwardError | None:
    """Compares two ways to differentiate one call.

    Args:
        explicit: Applies the Function.
        reference: The same in differentiable torch ops.
        call: The slice.
        torch_op: The op of torch with the same arguments, if there is one.

    Returns:
        The worst of all inputs; None where all gradients are zero, rounding noise or
        not finite.

    Raises:
        NotComparableError: If the Function draws random numbers or the reference has no
            derivative.
    """
    before = _random_states()
    found = call.gradients(explicit)
    if not all(map(torch.equal, before, _random_states())):
        raise NotComparableError(
            "it draws random numbers: another run is another function"
        )
    wide = call.wide()
    exact = wide.gradients(reference)
    if all(r is None for r in exact):
        raise NotComparableError("autograd finds no derivative of the reference")
    info = torch.finfo(call.dtype)
    far: list[int] = []
    errors: list[BackwardError | None] = []
    for place, needed in enumerate(call.needed):
        if needed and call.args[place].numel():
            g, r = _at(place, call, found, exact)
            close, error = _if_close(g, r, info.eps)
            errors.append(error)
            far += [] if close else [place]
    if far:
        moves = ((info.eps, _TINY), (0.0, _TINY), (0.0, -_TINY))
        near = [wide.moved(*by).gradients(reference) for by in moves]
        peers = [reference] if torch_op is None else [reference, torch_op]
        theirs = [call.gradients(peer) for peer in peers]
        for place in far:
            g, r, *moved = _at(place, call, found, exact, *near)
            errors.append(_of_input(g, r, moved, _at(place, call, *theirs), info))
    known = [error for error in errors if error is not None]
    return functools.reduce(worse, known) if known else None


def worse(a: BackwardError, b: BackwardError) -> BackwardError:
    """The larger error, the smaller cosine, the larger ratio.

    Args:
        a: One.
        b: The other.
    """
    return BackwardError(
        max(a.error, b.error), min(a.cosine, b.cosine), max(a.ratio, b.ratio)
    )


def _at(place: int, call: Slice, *runs: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradients of one argument, as float64; zeros where there is none."""
    grads = [run[place] for run in runs]
    zeros = torch.zeros_like(call.args[place])
    return [to_wide(zeros if grad is None else grad) for grad in grads]


def _if_close(g: Tensor, r: Tensor, eps: float) -> tuple[bool, BackwardError | None]:
    """Whether two gradients are equal but for rounding, and then how far apart."""
    everywhere = torch.ones_like(r, dtype=torch.bool)
    numbers = [_largest((g - r).abs(), everywhere), _largest(r.abs(), everywhere)]
    numbers += _products(g, r, everywhere)
    off, size, gg, gr, rr = torch.stack(numbers).tolist()
    if not (off <= _CLOSE * eps * size < math.inf):
        return False, None
    if size == 0:
        return True, None
    return True, BackwardError(off / size, _cosine(gg, gr, rr), off / (eps * size))


def _of_input(
    g: Tensor,
    r: Tensor,
    moved: Sequence[Tensor],
    theirs: Sequence[Tensor],
    info: torch.finfo,
) -> BackwardError | None:
    """The error of one input's gradient; None if it cannot be told from rounding."""
    change, *jumps = ((m - r).abs() for m in moved)
    jump = torch.stack(jumps).amax(0)
    known = r.isfinite() & change.isfinite() & jump.isfinite() & (r.abs() <= info.max)
    kink = (jump > _JUMP * r.abs()) | (change > _JUMP_OF_ROUNDING * r.abs())
    # Where all terms cancel r also jumps, but not far.
    reach = _EXCUSED * _largest(torch.maximum(change, jump), known & kink)

    def counts(h: Tensor) -> Tensor:
        return known & h.isfinite() & ~(kink & ((h - r).abs() <= reach))

    finite = torch.stack([h.isfinite() for h in theirs]).all(0)
    numbers = [
        (known & finite & ~g.isfinite()).any().double(),
        _largest(r.abs(), known),
        _largest((g - r).abs(), counts(g)),
        _largest(change, known & ~kink),
        *_products(g, r, counts(g)),
        *(_largest((h - r).abs(), counts(h)) for h in theirs),
    ]
    lost, size, off, condition, gg, gr, rr, *peers = torch.stack(numbers).tolist()
    if lost:
        return BackwardError(math.inf, 0.0, math.inf)
    smallest = info.smallest_normal * info.eps
    noise = max(peers) + condition + info.eps * size + smallest
    if max(size, off) <= _CLOSE * noise:
        return None
    error = off / size if size else math.inf
    return BackwardError(error, _cosine(gg, gr, rr), off / noise)


def _largest(x: Tensor, where: Tensor) -> Tensor:
    return x.where(where, 0).amax().double()


def _products(g: Tensor, r: Tensor, where: Tensor) -> list[Tensor]:
    g, r = (t.where(where, 0).reshape(-1) for t in (g, r))
    return [torch.vdot(a, b).real.double() for a, b in ((g, g), (g, r), (r, r))]


def _cosine(gg: float, gr: float, rr: float) -> float:
    if gg * rr > 0:
        return gr / math.sqrt(gg) / math.sqrt(rr)
    return float(gg == rr)


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return states
