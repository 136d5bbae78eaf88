"""The IDX reader gives back what was written, and says what is wrong with the rest."""

import gzip
from pathlib import Path

import pytest
import torch

from experiments._idx import read_idx
from tests.experiments.fashion_mnist_files import idx_bytes

IMAGES = torch.arange(2 * 3 * 4, dtype=torch.uint8).view(2, 3, 4)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28), (1, 1, 1, 7)])
@pytest.mark.parametrize("gzipped", [False, True])
def test_round_trip(tmp_path: Path, shape: tuple[int, ...], gzipped: bool) -> None:
    array = torch.randint(0, 256, shape, dtype=torch.uint8)
    content = idx_bytes(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if gzipped else content)
    got = read_idx(path)
    assert got.dtype == torch.uint8
    assert got.shape == shape
    assert torch.equal(got, array)


whole = idx_bytes(IMAGES)
packed = gzip.compress(whole, mtime=0)  # no clock: every test worker sees one name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "first bytes are 00 00 08 .* got nothing"),
        (b"\0\0", "got 00 00"),
        (b"PK\3\4" + whole, "got 50 4b 03 04"),
        (b"\0\0\x0d\1" + whole[4:], "got 00 00 0d 01"),
        (b"\0\0\x08\0", "got 00 00 08 00"),
        (whole[:10], "must have a header of 16 bytes, got 10"),
        (whole[:-1], "must have 2 × 3 × 4 = 24 bytes after its header, got 23"),
        (whole + b"\0", "= 24 bytes after its header, got 25"),
        (packed[:-9], "must be a whole gzip file"),
        (packed[:20] + b"\xff\xff" + packed[22:], "must be a whole gzip file"),
        (packed[:-8] + b"\0\0\0\0" + packed[-4:], "must be a whole gzip file.* CRC"),
        (packed[:5], "must be a whole gzip file"),
        (gzip.compress(whole[:-1], mtime=0), "= 24 bytes after its header, got 23"),
    ],
    ids=[
        "nothing",
        "short_magic",
        "zip",
        "float_type",
        "no_dimensions",
        "short_header",
        "short_body",
        "long_body",
        "gzip_cut",
        "gzip_body",
        "gzip_checksum",
        "gzip_header",
        "gzip_of_short",
    ],
)
def test_a_damaged_or_foreign_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        read_idx(tmp_path / "absent")
