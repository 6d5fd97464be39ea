"""Small new files: in memory and in the journal's segments until they are stored."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import CommitRequest
from ossfs_py.writing.context import SmallRoom
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.segments import SegmentLog, replayed
from tests.support.writing import REQUEST, TINY, Commits, Writing, run

SMALL = replace(TINY, small_bytes=8)


def kept(w: Writing) -> list[bytes]:
    """The small files that a daemon that is killed now leaves."""
    paths = sorted((w.journal.directory / "segments").glob("*.log"))
    return [bytes(each.data) for each in replayed(paths).values()]


def staged(w: Writing) -> list[Path]:
    return list((w.journal.directory / "staging").iterdir())


def test_a_small_file_is_one_put_and_has_no_file_of_its_own(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        await file.write(3, b"def")
        assert kept(w) == [b"abcdef"]
        assert staged(w) == []
        assert bytes(await file.read(1, 9)) == b"bcdef"
        await file.commit(REQUEST)
        assert kept(w) == []
        assert w.store.content("file") == b"abcdef"
        assert bytes(file.read_nowait(0, 3) or b"") == b"abc"  # no request for what is here
        await file.write(1, b"X")
        assert kept(w) == [b"aXcdef"]
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=SMALL)
    assert made.store.requests == {"put": 2}
    assert made.store.content("file") == b"aXcdef"
    assert made.local_files() == []


@pytest.mark.parametrize(("content", "room"), [(b"", 9), (b"abc", 9), (b"abc", 2)])
def test_what_is_in_memory_only_goes_to_the_journal_when_it_is_closed(
    tmp_path: Path, content: bytes, room: int
) -> None:
    """Without room for small files, it has a file of its own."""

    async def scenario(w: Writing) -> None:
        w.context = replace(w.context, small=SmallRoom(room))
        file = w.open(memory_first=True)
        if content:
            await file.write(0, content)
        assert kept(w) == []
        assert await file.secure(REQUEST)
        is_small = len(content) <= room
        assert (kept(w), len(staged(w))) == (([content], 0) if is_small else ([], 2))
        assert bytes(await file.read(0, 99)) == content
        await file.write(len(content), b"Z")
        assert await file.secure(REQUEST)
        await file.commit(REQUEST)
        assert kept(w) == []

    made = run(tmp_path, scenario, limits=SMALL)
    assert made.store.content("file") == content + b"Z"
    assert made.local_files() == []


def test_on_a_full_disk_what_is_in_memory_can_still_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        await file.write(0, b"abc")
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwritev", full)
            with pytest.raises(OSError, match="No space"):
                await file.secure(REQUEST)
        assert kept(w) == []
        await file.commit(REQUEST)

    assert run(tmp_path, scenario, limits=SMALL).store.content("file") == b"abc"


@pytest.mark.parametrize("change", ["longer", "a hole", "longer by truncate"])
def test_what_is_not_small_any_more_goes_on_in_a_file_of_its_own(
    tmp_path: Path, change: str
) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        if change == "longer":
            await file.write(3, b"defghijkl")
        elif change == "a hole":
            await file.write(5, b"z")
        else:
            await file.truncate(6)
        assert kept(w) == []
        assert len(staged(w)) == 2
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=SMALL)
    expected = {
        "longer": b"abcdefghijkl",
        "a hole": b"abc\0\0z",
        "longer by truncate": b"abc\0\0\0",
    }
    assert made.store.content("file") == expected[change]
    assert made.local_files() == []


def test_without_memory_left_for_small_files_they_have_files_of_their_own(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        w.context = replace(w.context, small=SmallRoom(5))
        first, second = w.open(memory_first=False), w.open(memory_first=False)
        await first.write(0, b"1234")
        await second.write(0, b"56")
        assert (kept(w), len(staged(w))) == ([b"1234"], 2)
        await first.commit(REQUEST)
        await first.close()
        third = w.open(memory_first=False)
        await third.write(0, b"78901")
        assert kept(w) == [b"78901"]
        await second.commit(REQUEST)
        await third.commit(REQUEST)

    run(tmp_path, scenario, limits=SMALL)


def test_what_a_killed_daemon_had_of_a_small_file_is_found(tmp_path: Path) -> None:
    request = CommitRequest("file", {"mode": "33188"})

    async def scenario(w: Writing) -> None:
        open_file, closed = w.open(memory_first=False), w.open(memory_first=False)
        await open_file.write(0, b"open")
        await closed.write(0, b"cl")
        assert await closed.secure(request)
        await closed.redescribe(replace(request, key="renamed"))

    run(tmp_path, scenario, limits=SMALL)
    journal = Journal(tmp_path / "state")
    journal.claim_leftovers()
    found = {record.key: record for record in journal.unsaved_records()}
    assert {key: record.complete for key, record in found.items()} == {
        "file": False,
        "renamed": True,
    }
    assert found["renamed"].metadata == {"mode": "33188"}
    assert journal.unsaved_path(found["file"].ident).read_bytes() == b"open"
    assert journal.unsaved_path(found["renamed"].ident).read_bytes() == b"cl"
    assert list((journal.directory / "segments").iterdir()) == []
    journal.close()


def test_a_closed_file_that_is_written_to_again_is_not_whole(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        assert await file.secure(REQUEST)
        await file.write(3, b"d")

    run(tmp_path, scenario, limits=SMALL)
    journal = Journal(tmp_path / "state")
    journal.claim_leftovers()
    (record,) = journal.unsaved_records()
    assert not record.complete
    assert record.size == 4
    journal.close()


def test_an_empty_file_is_kept_when_it_is_closed(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        assert kept(w) == []
        assert await file.secure(REQUEST)
        assert kept(w) == [b""]
        await file.commit(REQUEST)
        assert kept(w) == []

    made = run(tmp_path, scenario, limits=SMALL)
    assert made.store.content("file") == b""


def test_emptying_a_file_is_known_before_what_it_held_is_forgotten(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"longer than small files are")
        assert await file.secure(REQUEST)
        await file.truncate(0)
        assert kept(w) == [b""]
        assert staged(w) == []
        await file.write(0, b"new")
        await file.truncate(2)
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=SMALL)
    assert made.store.content("file") == b"ne"


def test_a_removed_file_leaves_nothing_and_is_readable(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        file.abandon()
        assert kept(w) == []
        await file.write(3, b"def")
        assert kept(w) == []
        assert bytes(await file.read(0, 9)) == b"abcdef"

    made = run(tmp_path, scenario, limits=SMALL)
    assert made.store.requests == {}


def test_what_cannot_be_stored_is_set_aside(tmp_path: Path) -> None:
    paths: list[Path] = []

    async def scenario(w: Writing) -> None:
        w.store.fail("put", StoreUnavailableError("down"))
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        with pytest.raises(StoreUnavailableError):
            await file.commit(REQUEST)
        assert kept(w) == [b"abc"]
        path = file.set_aside(REQUEST)
        paths.append(Path(path or ""))
        assert kept(w) == []
        (record,) = w.journal.unsaved_records()
        assert (record.key, record.size) == ("file", 3)

    run(tmp_path, scenario, limits=SMALL)
    assert paths[0].read_bytes() == b"abc"


def test_a_full_disk_is_told_and_what_was_written_before_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", full)
            with pytest.raises(OSError, match="No space"):
                await file.write(3, b"def")
        assert file.size == 3
        await file.write(3, b"DEF")
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=SMALL)
    assert made.store.content("file") == b"abcDEF"


def test_on_a_slow_disk_threads_keep_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SegmentLog, "is_slow", True)
    calls: list[object] = []

    async def scenario(w: Writing) -> None:
        run_to_end = w.context.local.run_to_end

        async def counted(*arguments: object) -> object:
            calls.append(arguments)
            return await run_to_end(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(w.context.local, "run_to_end", counted)
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        assert await file.secure(REQUEST)
        assert kept(w) == [b"abc"]
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=SMALL)
    assert len(calls) == 2
    assert made.store.content("file") == b"abc"


def test_a_file_that_is_removed_while_a_thread_keeps_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SegmentLog, "is_slow", True)

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.write, 0, b"abc")
            await trio.testing.wait_all_tasks_blocked()
            file.abandon()
        assert kept(w) == []
        assert bytes(await file.read(0, 9)) == b"abc"

    run(tmp_path, scenario, limits=SMALL)


def test_what_was_stored_is_lent_as_a_file(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False, committer=Commits())
        await file.write(0, b"abcdef")
        assert file.lend() is None
        await file.commit(REQUEST)
        lent = file.lend()
        assert lent is not None
        assert os.pread(lent.fd, 10, 0) == b"abcdef"
        await file.write(0, b"X")
        assert file.lend() is None
        assert os.pread(lent.fd, 10, 0) == b"abcdef"
        assert lent.unchanged()
        lent.give_back()

    run(tmp_path, scenario, limits=SMALL)


def test_what_was_stored_is_remembered_while_nobody_needs_its_room(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        room = SmallRoom(3 * 2048)
        w.context = replace(w.context, small=room)
        versions = []
        for content in (b"first", b"second", b"third"):
            file = w.open(memory_first=False)
            await file.write(0, content)
            version = await file.commit(replace(REQUEST, key=content.decode()))
            assert version is not None
            versions.append(version)
            await file.close()
        first, second, third = versions
        assert [room.recall(each) for each in versions] == [b"first", b"second", b"third"]
        assert room.recall(replace(first, etag='"other"')) is None
        assert room.recall(first) == b"first"  # so the second is the oldest
        assert room.take(3 * 2048 - 2 * 1030)
        assert [room.recall(each) for each in (first, second, third)] == [b"first", None, b"third"]
        assert room.take(2 * 1030)
        assert room.recall(first) is None
        room.take(-3 * 2048)
        changed = w.open(memory_first=False)
        await changed.write(0, b"stored")
        version = await changed.commit(REQUEST)
        assert version is not None
        await changed.write(0, b"not st")
        changed.abandon()
        await changed.close()
        assert room.recall(version) is None

    run(tmp_path, scenario, limits=SMALL)


def test_a_file_that_is_removed_while_it_is_stored_does_not_come_back(tmp_path: Path) -> None:
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"abc")
        assert await file.secure(REQUEST)
        assert kept(w) == [b"abc"]
        gate = w.store.hold("put")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.commit, REQUEST)
            await trio.testing.wait_all_tasks_blocked(0.01)
            file.abandon()
            left = kept(w)
            gate.set()
        assert left == []  # whatever becomes of the PUT, the journal brings nothing back
        assert kept(w) == []
        assert bytes(await file.read(0, 9)) == b"abc"
        assert await file.commit(REQUEST) is None

    assert run(tmp_path, scenario, limits=SMALL).local_files() == []
