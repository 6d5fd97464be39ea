"""Segments: small things that a daemon that died has left, one after the other."""

import errno
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ossfs_py.writing import segments
from ossfs_py.writing.segments import EntryKind, SegmentLog, count_files, replayed

FILE, BYTES, SIZE = EntryKind.FILE, EntryKind.BYTES, EntryKind.SIZE
RECORD, MARKER, REMOVAL = EntryKind.RECORD, EntryKind.MARKER, EntryKind.REMOVAL


def new_id() -> str:
    return uuid.uuid4().hex


def left(directory: Path) -> dict[str, tuple[EntryKind, str, bytes]]:
    """What a daemon that is killed now leaves."""
    found = replayed(sorted(directory.glob("*.log")))
    return {ident: (each.kind, each.text, bytes(each.data)) for ident, each in found.items()}


def test_a_file_is_found_with_all_that_was_done_to_it(tmp_path: Path) -> None:
    log, ident = SegmentLog(tmp_path), new_id()
    log.put(FILE, ident, "first", b"0123456789")
    log.add(ident, BYTES, 10, "", b"abc")
    log.add(ident, BYTES, 2, "", b"XY")
    log.add(ident, SIZE, 12, "", b"")
    log.add(ident, RECORD, 0, "later", b"")
    assert left(tmp_path) == {ident: (FILE, "later", b"01XY456789ab")}
    assert count_files(tmp_path) == 1


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_short_and_long_entries_are_found_alike(tmp_path: Path, more: int) -> None:
    log, ident, data = SegmentLog(tmp_path), new_id(), bytes(segments._JOINED_BYTES + more)
    log.put(FILE, ident, "", b"content")
    log.add(ident, BYTES, 3, "", data)
    log.add(ident, RECORD, 0, "t" * (segments._JOINED_BYTES + more), b"")
    assert left(tmp_path) == {ident: (FILE, "t" * len(data), b"con" + data)}


def test_what_is_not_needed_any_more_is_not_found(tmp_path: Path) -> None:
    log, file, marker = SegmentLog(tmp_path), new_id(), new_id()
    log.put(FILE, file, "file", b"content")
    log.add(file, BYTES, 0, "", b"C")
    log.put(MARKER, marker, "marker")
    assert file in log
    assert log.drop(file)
    assert not log.drop(file)
    assert left(tmp_path) == {marker: (MARKER, "marker", b"")}
    log.add(file, BYTES, 0, "", b"late")
    assert file not in left(tmp_path)
    log.put(FILE, file, "again", b"")
    assert left(tmp_path)[file] == (FILE, "again", b"")


def test_what_is_put_takes_the_place_of_what_was(tmp_path: Path) -> None:
    log, ident = SegmentLog(tmp_path), new_id()
    for text in ("one", "two", "three"):
        log.put(REMOVAL, ident, text)
    assert left(tmp_path) == {ident: (REMOVAL, "three", b"")}
    assert log.texts(REMOVAL) == ["three"]
    assert log.texts(MARKER) == []


@pytest.mark.parametrize("cut_bytes", [1, 5, 45, 70])
def test_a_segment_that_was_cut_counts_up_to_there(tmp_path: Path, cut_bytes: int) -> None:
    log, first, second = SegmentLog(tmp_path), new_id(), new_id()
    log.put(FILE, first, "first", b"content")
    log.put(FILE, second, "second", bytes(100))
    (path,) = tmp_path.glob("*.log")
    os.truncate(path, path.stat().st_size - cut_bytes)
    assert left(tmp_path) == {first: (FILE, "first", b"content")}


def test_a_damaged_entry_and_what_is_behind_it_does_not_count(tmp_path: Path) -> None:
    log, idents = SegmentLog(tmp_path), [new_id() for _ in range(3)]
    for ident in idents:
        log.put(FILE, ident, "text", b"content")
    (path,) = tmp_path.glob("*.log")
    content = bytearray(path.read_bytes())
    content[content.index(b"content", len(content) // 3) + 2] ^= 1
    path.write_bytes(content)
    assert list(left(tmp_path)) == idents[:1]


def test_an_entry_of_another_version_hides_none_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, first, unknown, second = SegmentLog(tmp_path), new_id(), new_id(), new_id()
    log.put(FILE, first, "first", b"content")
    with monkeypatch.context() as patch:
        patch.setattr(segments, "_KINDS", frozenset({FILE}))
        log.put(MARKER, unknown, "of a kind that is not known", bytes(100))
        log.put(FILE, second, "second", b"more")
        assert left(tmp_path) == {
            first: (FILE, "first", b"content"),
            second: (FILE, "second", b"more"),
        }


def full_disk(after_bytes: int) -> Callable[[int, list[memoryview], int], int]:
    """A pwritev that takes so many bytes, and then no more."""
    real, room = os.pwritev, after_bytes

    def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = b"".join(buffers)[:room]
        room -= len(taken)
        return real(fd, [taken], offset)

    return pwritev


@pytest.mark.parametrize("after_bytes", [0, 1, 39, 60])
def test_on_a_full_disk_what_was_kept_still_is_and_what_comes_later_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_bytes: int
) -> None:
    log, first, second, third = SegmentLog(tmp_path), new_id(), new_id(), new_id()
    log.put(FILE, first, "first", b"content")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full_disk(after_bytes))
        for ident in (first, second):
            with pytest.raises(OSError, match="No space"):
                log.put(FILE, ident, "none", bytes(1000))
    assert left(tmp_path) == {first: (FILE, "first", b"content")}
    log.put(FILE, third, "third", b"")
    assert left(tmp_path) == {first: (FILE, "first", b"content"), third: (FILE, "third", b"")}
    assert log.drop(first)
    assert list(left(tmp_path)) == [third]


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_LONGEST_BYTES", 500)


@pytest.mark.usefixtures("short_segments")
def test_a_segment_goes_when_nothing_in_it_is_needed(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    for _ in range(50):
        ident = new_id()
        log.put(FILE, ident, "text", bytes(100))
        log.drop(ident)
        assert len(list(tmp_path.iterdir())) <= 2
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("short_segments")
def test_one_file_that_stays_open_does_not_keep_all_that_came_after_it(tmp_path: Path) -> None:
    log, stays, marker = SegmentLog(tmp_path), new_id(), new_id()
    log.put(FILE, stays, "stays", b"content")
    log.put(MARKER, marker, "marker")
    kept = [marker]
    for number in range(200):
        ident = new_id()
        log.put(FILE, ident, "text", bytes(100))
        log.add(stays, BYTES, 7 + number, "", b"%d" % (number % 10))
        log.drop(ident)
        if number % 50 == 0:
            log.put(REMOVAL, ident, "removal")
            kept.append(ident)
        assert len(list(tmp_path.iterdir())) <= 10
    found = left(tmp_path)
    assert found.keys() == {stays, *kept}
    assert found[stays] == (FILE, "stays", b"content" + b"0123456789" * 20)
    assert sorted(log.texts(REMOVAL)) == ["removal"] * 4


@pytest.mark.usefixtures("short_segments")
def test_the_next_mount_takes_over_all_but_the_files_which_it_is_given(tmp_path: Path) -> None:
    log, file, marker = SegmentLog(tmp_path), new_id(), new_id()
    log.put(FILE, file, "file", bytes(1000))
    log.put(MARKER, marker, "marker")
    before = left(tmp_path)
    following = SegmentLog(tmp_path)
    files, paths = following.adopt()
    assert {ident: bytes(each.data) for ident, each in files.items()} == {file: bytes(1000)}
    assert following.texts(MARKER) == ["marker"]
    assert left(tmp_path) == before  # a kill at this moment loses nothing
    for path in paths:
        path.unlink()
    assert left(tmp_path) == {marker: (MARKER, "marker", b"")}
    following.close()
    log.close()


def test_a_sync_brings_what_was_appended_to_the_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().suffix)
    )
    log = SegmentLog(tmp_path)
    log.put(MARKER, new_id(), "marker")
    log.sync()
    assert synced == [".log", ""]  # and its name
    log.sync()
    log.put(MARKER, new_id(), "marker")
    log.sync()
    assert synced == [".log", "", ".log"]


def test_what_could_not_be_synced_is_synced_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SegmentLog(tmp_path)
    log.put(MARKER, new_id(), "marker")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk_of_syncs)
        with pytest.raises(OSError, match="Input/output"):
            log.sync()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    log.sync()
    assert len(synced) == 2


def full_disk_of_syncs(_fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_append_that_waited_for_the_disk_says_so_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, now, delay = os.pwritev, 100.0, 0.02

    def slow(fd: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal now
        now += delay
        return real(fd, buffers, offset)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = SegmentLog(tmp_path)
    log.put(MARKER, new_id(), "marker")
    assert not log.is_slow
    monkeypatch.setattr(os, "pwritev", slow)
    log.put(MARKER, new_id(), "marker")
    assert not log.is_slow, "it may as well have waited for a processor"
    delay = 0.1
    log.put(MARKER, new_id(), "marker")
    assert log.is_slow
    now += 1.5
    assert not log.is_slow
