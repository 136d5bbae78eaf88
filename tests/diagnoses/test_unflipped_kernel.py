"""A correlation where a convolution is meant."""

from __future__ import annotations

import torch.nn.functional as F

from gradlab.diagnoses import UnflippedKernel

from .mutants import say, t, wrong


def test_names_exchanged_channels() -> None:
    exchanged = wrong(
        lambda x, w: F.conv1d(x, w, padding=1),
        lambda x, w, y, v: F.conv1d(v, w.flip(2), padding=1),
    )
    sentence = say(UnflippedKernel(), exchanged, t(2, 3, 5), t(3, 3, 3))
    assert "axes 0 and 1 (out and in channels) exchanged" in sentence


def test_is_silent_about_other_wrong_kernels() -> None:
    rolled = wrong(
        lambda x, w: F.conv1d(x, w, padding=1),
        lambda x, w, y, v: F.conv_transpose1d(v, w.roll(1, 0), padding=1),
    )
    assert not say(UnflippedKernel(), rolled, t(2, 3, 5), t(4, 3, 3))
