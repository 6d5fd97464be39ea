"""DirtyFile while others act at the same moment: reads, truncations, renames, removals."""

import errno
import pkgutil
import threading
from contextlib import suppress

import pytest
import trio
import trio.testing

from ossfs_py.errors import ObjectMissingError, StoreUnavailableError, UnsavedDataError
from ossfs_py.model import CommitRequest, Condition
from ossfs_py.writing.recovery import Recovery
from tests.support.writing import BOTH, REQUEST, TINY_PARTS, Commits, Writing, idle, pattern, run

DOWN = StoreUnavailableError("down")
CREATE = Condition(only_if_absent=True)


@BOTH
def test_more_can_be_written_after_only_the_metadata_of_a_new_file_failed(tmp_path, memory_first):
    """The object is there by then, made by us: it is nobody else's that is in the way."""

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(100))
        w.store.fail("copy", DOWN)
        with pytest.raises(StoreUnavailableError):
            await file.commit(CommitRequest("file", {"mode": "33152"}, condition=CREATE))
        assert w.store.content("file") == pattern(100)
        await file.write(100, b"more")
        await file.commit(CommitRequest("file", {"mode": "33152"}, condition=CREATE))

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(100) + b"more"
    assert made.store.metadata("file") == {"mode": "33152"}


@BOTH
def test_a_rewritten_object_that_was_set_aside_is_recovered(tmp_path, memory_first):
    """The writer had seen the object that is still there: nobody else's work is overwritten."""

    async def scenario(w: Writing) -> None:
        file = w.open(w.store.seed("file", pattern(50)), memory_first=memory_first)
        await file.truncate(0)
        await file.write(0, b"new")
        file.set_aside(REQUEST)
        recovery = Recovery(w.journal, TINY_PARTS)
        recovery.upload(recovery.list()[0].ident, w.store)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == b"new"


def test_a_read_that_waits_while_its_bytes_are_cut_off_ends_there(tmp_path):
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        await file.write(0, pattern(100))
        await idle(w)
        answers = []

        async def read() -> None:
            answers.append(bytes(await file.read(60, 20)))

        async def commit() -> None:
            w.store.fail("complete", DOWN)
            with pytest.raises(StoreUnavailableError):
                await file.commit(REQUEST)

        gate = w.store.hold("complete")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(file.truncate, 3)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert answers == [b""]
        assert "file" not in w.store.objects
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(3)


def test_reading_beside_truncation_and_extension_never_fails(tmp_path):
    """As on a local disk: old bytes, zeros, or a short read, and never an error."""

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"x" * 4096)
        over = False

        async def change() -> None:
            nonlocal over
            for _ in range(300):
                await file.truncate(100)
                await file.truncate(4096)
            over = True

        async def read() -> None:
            while not over:
                data = bytes(await file.read(2048, 1024))
                assert not data.strip(b"x\0")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(read)
            nursery.start_soon(change)
        file.abandon()

    run(tmp_path, scenario)


def test_a_truncation_that_a_full_disk_cuts_short_is_stored_as_far_as_it_got(tmp_path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        await file.commit(REQUEST)
        w.store.fail("start_multipart", DOWN)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr("os.pwrite", full)
            await file.truncate(40)
        assert file.dirty == bool(file.size)
        while file.dirty:
            try:
                await file.commit(REQUEST)
            except StoreUnavailableError:
                await idle(w)
        assert len(w.store.content("file")) == file.size

    run(tmp_path, scenario, memory_bytes=11)


@pytest.mark.parametrize(
    "slow",
    [
        "ossfs_py.writing.journal.Journal.create_staging",
        "ossfs_py.writing.staging._write_within",
    ],
    ids=["before the first byte", "between the bytes"],
)
def test_parts_accepted_while_a_stream_moves_to_disk_are_there_too(tmp_path, monkeypatch, slow):
    """Their memory was freed under the copy: zeros were stored when such a part changed again."""
    go_on = threading.Event()
    real = pkgutil.resolve_name(slow)

    def slowly(*args: object) -> object:
        assert go_on.wait(60)
        return real(*args)

    async def scenario(w: Writing) -> None:
        accept = w.store.hold("upload_part")
        file = w.open(memory_first=True)
        await file.write(0, pattern(30))
        with monkeypatch.context() as patch:
            patch.setattr(slow, slowly)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.stay_readable)
                await trio.testing.wait_all_tasks_blocked()
                accept.set()
                while w.context.network.running:
                    await w.context.network.run(int, urgent=False)
                go_on.set()
        assert bytes(await file.read(0, 30)) == pattern(30)
        await file.write(12, b"changed")
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(12) + b"changed" + pattern(30)[19:]


def test_a_file_unlinked_while_its_bytes_are_brought_back_stays_away(tmp_path):
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        await file.write(0, pattern(60))
        await idle(w)
        gate = w.store.hold("upload_part")

        async def read() -> None:
            with pytest.raises(UnsavedDataError):
                await file.read(30, 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            file.abandon()
            gate.set()

    made = run(tmp_path, scenario)
    assert made.store.keys() == []
    assert made.store.uploads == {}


def test_who_deletes_the_key_can_wait_for_bytes_that_are_being_brought_back(tmp_path):
    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        await file.write(0, pattern(60))
        await idle(w)
        gate = w.store.hold("complete")
        completing = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def note(method: str, _key: str) -> None:
            if method == "complete":
                token.run_sync_soon(completing.set)

        w.store.on_request = note

        async def read() -> None:
            with suppress(ObjectMissingError):  # it may come too late
                await file.read(30, 10)

        async def remove() -> None:
            file.abandon()
            assert await file.commit(REQUEST) is None
            w.store.erase("file")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await completing.wait()
            nursery.start_soon(remove)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()

    made = run(tmp_path, scenario)
    assert made.store.keys() == []


def test_a_file_is_bound_to_its_key_as_soon_as_parts_are_under_way(tmp_path):
    """Renamed before the first is accepted, it would have to appear under its old name again."""

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        gate = w.store.hold("upload_part")
        await file.write(0, pattern(20))
        assert file.bound
        gate.set()
        await file.commit(REQUEST)
        assert not file.bound

    run(tmp_path, scenario)


def test_recovering_bytes_sent_under_an_old_name_overwrites_nobody(tmp_path):
    names = ["old"]

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True, committer=Commits(lambda: CommitRequest(names[-1])))
        await file.write(0, pattern(60))
        await idle(w)
        names.append("new")
        file.set_aside(CommitRequest("new"))
        w.store.seed("old", b"somebody else's")
        recovery = Recovery(w.journal, TINY_PARTS)
        with pytest.raises(Exception, match="exists"):
            recovery.upload(recovery.list()[0].ident, w.store)
        assert w.store.content("old") == b"somebody else's"
        w.store.erase("old")
        recovery.upload(recovery.list()[0].ident, w.store)

    made = run(tmp_path, scenario)
    assert made.store.content("new") == pattern(60)
    assert made.store.keys() == ["new"]
