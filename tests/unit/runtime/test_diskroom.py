"""Room on the local disk, for several threads at once."""

import pytest

from ossfs_py.runtime import diskroom
from ossfs_py.runtime.diskroom import READERS, DiskRoom


def test_threads_that_write_at_once_do_not_take_the_same_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diskroom, "left_bytes", lambda *_: 10)
    room = DiskRoom(1)
    with room.reserved(0, READERS, 6) as first:
        assert first
        with room.reserved(0, READERS, 6) as second:
            assert not second
        # Somebody who was refused holds nothing.
        with room.reserved(0, READERS, 4) as third:
            assert third
        assert not room.has_room(0, READERS, 5)
    with room.reserved(0, READERS, 10) as again:
        assert again


def test_a_write_that_fails_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diskroom, "left_bytes", lambda *_: 10)
    room = DiskRoom(1)
    with pytest.raises(OSError, match="broken"), room.reserved(0, READERS, 10):
        raise OSError("broken")
    assert room.has_room(0, READERS, 10)


@pytest.mark.parametrize(
    ("left", "size", "asked"), [(2**40, 1, 1), (2**40, 2**20, 3), (2**20, 1, 3)]
)
def test_only_for_a_few_bytes_of_much_room_an_answer_counts_twice(
    monkeypatch: pytest.MonkeyPatch, left: int, size: int, asked: int
) -> None:
    answers = [left, left, 0]
    monkeypatch.setattr(diskroom, "left_bytes", lambda *_: answers.pop(0))
    times = [0.0, 0.001, 0.002, 1.0]
    monkeypatch.setattr(diskroom, "monotonic", lambda: times.pop(0))
    room = DiskRoom(1)
    found = [room.has_room(0, READERS, size) for _ in range(3)]
    assert len(answers) == 3 - asked
    assert found == [True, True, asked == 1]
    if asked == 1:
        answers[:] = [0]
        assert not room.has_room(0, READERS, size)  # in time it is asked for again
