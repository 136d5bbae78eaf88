import errno
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

from gradlab.tensorboard._records import RecordFile, records


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    for data in (b"", b"one", b"two" * 1000):
        file.append(data)
    file.close()
    head, *rest = RawEventFileLoader(str(file.path)).Load()
    assert b"brain.Event:2" in head
    assert rest == [b"", b"one", b"two" * 1000]
    assert list(records(file.path)) == [head, *rest]


def test_each_record_is_there_when_the_call_returns(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    for n in range(3):
        file.append(bytes([n]))
        assert [*records(file.path)][1:] == [bytes([i]) for i in range(n + 1)]
    file.close()


@pytest.mark.parametrize("lost", [1, 4, 8, 12, 15])
def test_a_torn_record_ends_the_file(tmp_path: Path, lost: int) -> None:
    file = RecordFile(tmp_path)
    file.append(b"one")
    file.append(b"two")
    file.close()
    file.path.write_bytes(file.path.read_bytes()[:-lost])
    assert [*records(file.path)][1:] == [b"one"]


def test_a_damaged_record_ends_the_file(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    for data in (b"one", b"two", b"six"):
        file.append(data)
    file.close()
    file.path.write_bytes(file.path.read_bytes().replace(b"two", b"2wo"))
    assert [*records(file.path)][1:] == [b"one"]


@pytest.mark.parametrize("room", [0, 1, 15])
def test_a_record_that_finds_no_room_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """A disk takes what there is room for, and only then says that it is full."""
    write, left = os.write, [room]

    def full(file: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: left[0]])
        left[0] -= written
        return written

    file = RecordFile(tmp_path)
    file.append(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                file.append(b"lost")
    file.append(b"two")
    file.close()
    assert [*records(file.path)][1:] == [b"one", b"two"]


def test_a_disk_that_is_full_from_the_start_may_have_room_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        file = RecordFile(tmp_path)
        with pytest.raises(OSError, match="No space left"):
            file.append(b"lost")
    file.append(b"one")
    file.close()
    head, *rest = records(file.path)
    assert b"brain.Event:2" in head
    assert rest == [b"one"]


def test_a_deleted_file_is_said(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    file.append(b"one")
    file.path.unlink()
    with pytest.raises(FileNotFoundError, match="stays where it is while it is writ"):
        file.append(b"two")
    file.close()


def test_a_closed_file_is_closed(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    file.close()
    file.close()
    for use in (file.flush, lambda: file.append(b"")):
        with pytest.raises(ValueError, match="is written until it is closed"):
            use()


def test_files_of_one_moment_are_several(tmp_path: Path) -> None:
    files = [RecordFile(tmp_path) for _ in range(12)]
    assert sorted(file.path for file in files) == [file.path for file in files]
    for file in files:
        file.close()
