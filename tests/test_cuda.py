"""Every op on a GPU, where there is one: the CPU's outputs and gradients."""

import pytest
import torch

from gradlab import OpInfo, layers
from gradlab._opinfo import make_tensors
from tests.conformance import samples
from tests.conformance._drop_in import assert_close, evaluate


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("opinfo", layers.opinfos, ids=lambda opinfo: opinfo.name)
def test_same_numbers_as_on_the_cpu(opinfo: OpInfo) -> None:
    there = opinfo.sample_inputs(make_tensors(torch.float64, device="cuda"))
    for here, sample in zip(samples(opinfo), there, strict=True):
        moved = [a.cuda() if isinstance(a, torch.Tensor) else a for a in sample.args]
        sample.args = tuple(moved)
        outputs, grads = evaluate(opinfo.op, sample)
        on_cpu = [g if g is None else g.cpu() for g in grads]
        assert_close(
            ([y.cpu() for y in outputs], on_cpu), evaluate(opinfo.op, here), ""
        )
