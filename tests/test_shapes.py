"""The shapes in the signatures are true: checked by jaxtyping and beartype.

In a process of its own, since the import hook must come before the first import, and
since Dynamo does not trace what the hook puts around every function.
"""

import subprocess
import sys

CHECKED = """
from jaxtyping import install_import_hook
with install_import_hook("gradlab.layers", "beartype.beartype"):
    import gradlab.layers
import torch
from gradlab._opinfo import make_tensors
"""

EVERY_OP = """
calls = 0
for opinfo in gradlab.layers.opinfos:
    make = make_tensors(torch.float32)
    for sample in opinfo.sample_inputs(make):
        for op in (opinfo.op, opinfo.reference):
            sample.bind(op)(*sample.tensors)
            calls += 1
    for given in opinfo.module_inputs(make):
        given.build()(*given.inputs)
        calls += 1
print(calls)
"""

A_WRONG_SHAPE = """
gradlab.layers._linear.linear_reference(torch.ones(2, 3), torch.ones(4, 5))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", CHECKED + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_op_keeps_the_shapes_of_its_signature() -> None:
    done = run(EVERY_OP)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


def test_a_wrong_shape_is_caught() -> None:
    done = run(A_WRONG_SHAPE)
    assert done.returncode == 1
    assert "TypeCheckError" in done.stderr
    assert "in_features" in done.stderr
