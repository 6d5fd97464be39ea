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
