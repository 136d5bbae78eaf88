import random

import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from gradlab.tensorboard._crc32c import masked


@pytest.mark.parametrize("sizes", [range(70), range(250, 260), [511, 512, 513, 6500]])
def test_it_is_the_one_that_tensorboard_computes(sizes: range | list[int]) -> None:
    maker = random.Random(0)
    for size in sizes:
        data = maker.randbytes(size)
        assert masked(data) == masked_crc32c(data), size
