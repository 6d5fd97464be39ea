"""DirtyFile: what programs write, and what becomes of it."""

import pytest
import trio
import trio.testing

from ossfs_py.errors import (
    ConditionFailedError,
    FileTooLargeError,
    StoreUnavailableError,
    UnsavedDataError,
    VersionChangedError,
)
from ossfs_py.model import CommitRequest, Condition
from ossfs_py.store.base import Capabilities
from ossfs_py.writing.context import WriteLimits
from tests.support.fake_store import FakeStore
from tests.support.writing import BOTH, REQUEST, Commits, idle, pattern, run

MIB = 1024**2

# -- new files ---------------------------------------------------------------------------------


@BOTH
def test_an_empty_new_file_is_stored_by_its_commit(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        assert file.dirty
        version = await file.commit(REQUEST)
        assert version == w.store.objects["file"].info.version
        assert version.size == 0
        assert not file.dirty
        assert await file.commit(REQUEST) is None

    made = run(tmp_path, scenario)
    assert made.store.requests == {"put": 1}


@BOTH
@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_a_file_of_at_most_one_part_is_one_put(tmp_path, memory_first, size):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        for n in range(size):
            await file.write(n, pattern(size)[n : n + 1])
        await file.commit(CommitRequest("file", {"mode": "33188"}, "text/plain"))

    made = run(tmp_path, scenario)
    assert made.store.requests == {"put": 1}
    assert made.store.content("file") == pattern(size)
    assert made.store.metadata("file") == {"mode": "33188"}
    assert made.pool.used_bytes == 0


@BOTH
def test_full_parts_leave_before_the_commit(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        for start in range(0, 100, 10):
            await file.write(start, pattern(100)[start : start + 10])
        await idle(w)
        assert w.store.requests["upload_part"] == 12
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.requests == {"start_multipart": 1, "upload_part": 13, "complete": 1}
    assert made.store.content("file") == pattern(100)
    assert made.local_files() == []


def test_sequential_writing_from_memory_touches_no_disk_and_stays_in_its_budget(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True)
        for start in range(0, 4000, 50):
            await file.write(start, pattern(4000)[start : start + 50])
            assert w.pool.used_bytes <= 64
            assert not list((w.journal.directory / "staging").iterdir())
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, memory_bytes=64)
    assert made.store.content("file") == pattern(4000)
    assert made.pool.used_bytes == 0


def test_a_starved_stream_continues_on_disk_instead_of_waiting_for_idle_files(tmp_path):
    async def scenario(w):
        files = [w.open(memory_first=True) for _ in range(6)]
        for number, file in enumerate(files):
            await file.write(0, pattern(8, number))
        for number, file in enumerate(files):
            assert await file.read(0, 8) == pattern(8, number)
            await file.commit(CommitRequest(f"file{number}"))

    made = run(tmp_path, scenario, memory_bytes=20)
    for number in range(6):
        assert made.store.content(f"file{number}") == pattern(8, number)


def test_a_header_rewritten_at_the_end_needs_no_second_way(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True)
        await file.write(0, pattern(100))
        await file.write(2, b"HEAD")
        assert await file.read(0, 8) == pattern(100)[:2] + b"HEAD" + pattern(100)[6:8]
        await file.commit(REQUEST)
        assert not list((w.journal.directory / "staging").iterdir())

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(100)[:2] + b"HEAD" + pattern(100)[6:]
    assert made.store.requests["complete"] == 1


@pytest.mark.parametrize("rereads", [True, False])
def test_bytes_that_streamed_away_can_be_read_before_close(tmp_path, rereads):
    """Who has to keep what the object replaces is asked before it is made."""
    stored, asked = [], []

    async def scenario(w):
        file = w.open(
            memory_first=True,
            committer=Commits(
                stored_early=stored.append, replaces=lambda: asked.append(w.store.keys())
            ),
            expects_rereads=rereads,
        )
        await file.write(0, pattern(100))
        await idle(w)
        assert await file.read(30, 40) == pattern(100)[30:70]
        assert file.dirty
        assert ("file" in w.store.objects) == (not rereads)
        await file.write(100, b"more")
        await file.commit(CommitRequest("file", condition=Condition(only_if_absent=True)))
        assert await file.read(98, 10) == pattern(100)[98:] + b"more"

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(100) + b"more"
    assert made.store.keys() == ["file"]
    assert [version.key for version in stored] == ([] if rereads else ["file"])
    assert asked == [[]]


def test_a_stream_under_a_hidden_key_is_copied_on_the_server_at_commit(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True, expects_rereads=True)
        await file.write(0, pattern(100))
        await idle(w)
        sent = w.store.bytes_written
        await file.commit(CommitRequest("file", {"mode": "33188"}))
        assert w.store.bytes_written <= sent + 16

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(100)
    assert made.store.keys() == ["file"]
    assert made.store.metadata("file") == {"mode": "33188"}


def test_writing_over_bytes_that_streamed_away_keeps_everything(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True)
        await file.write(0, pattern(200))
        await idle(w)
        await file.write(50, b"x" * 20)
        await file.truncate(150)
        await file.write(160, b"end")
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    expected = pattern(200)[:50] + b"x" * 20 + pattern(200)[70:150] + bytes(10) + b"end"
    assert made.store.content("file") == expected
    assert made.local_files() == []


@BOTH
@pytest.mark.parametrize("rereads", [True, False])
def test_a_file_renamed_while_written_is_stored_under_its_new_key(tmp_path, memory_first, rereads):
    names = ["old"]

    async def scenario(w):
        file = w.open(
            memory_first=memory_first,
            committer=Commits(lambda: CommitRequest(names[-1])),
            expects_rereads=rereads,
        )
        await file.write(0, pattern(60))
        await file.write(60, pattern(40))
        await idle(w)
        names.append("new")
        version = await file.commit(CommitRequest("new"))
        assert version.key == "new"

    made = run(tmp_path, scenario)
    assert made.store.content("new") == pattern(60) + pattern(40)
    assert made.store.keys() == ["new"]
    assert all(upload.result for upload in made.store.uploads.values())


@BOTH
def test_metadata_that_changed_since_the_upload_began_is_what_the_object_gets(
    tmp_path, memory_first
):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(100))
        await file.commit(CommitRequest("file", {"mode": "33152"}))

    made = run(tmp_path, scenario)
    assert made.store.metadata("file") == {"mode": "33152"}
    assert made.store.content("file") == pattern(100)


# -- changed objects -----------------------------------------------------------------------------


@BOTH
def test_an_append_to_a_large_object_moves_only_the_tail(tmp_path, memory_first):
    async def scenario(w):
        base = w.store.seed("file", pattern(MIB) * 128)
        file = w.open(base, memory_first=memory_first)
        await file.write(base.size, b"x" * MIB)
        await file.commit(REQUEST)

    store = FakeStore()
    made = run(tmp_path, scenario, store=store, limits=WriteLimits())
    assert store.content("file") == pattern(MIB) * 128 + b"x" * MIB
    assert store.bytes_read + store.bytes_written < 2 * MIB
    assert made.local_files() == []


@BOTH
def test_four_changed_kibibytes_of_a_large_object_move_a_part_or_two(tmp_path, memory_first):
    async def scenario(w):
        base = w.store.seed("file", pattern(MIB) * 128)
        file = w.open(base, memory_first=memory_first)
        await file.write(64 * MIB, b"x" * 4096)
        await file.commit(REQUEST)

    store = FakeStore()
    run(tmp_path, scenario, store=store, limits=WriteLimits())
    expected = bytearray(pattern(MIB) * 128)
    expected[64 * MIB : 64 * MIB + 4096] = b"x" * 4096
    assert store.content("file") == expected
    assert store.bytes_read + store.bytes_written < 24 * MIB


def test_without_part_copy_the_clean_bytes_go_through_here(tmp_path):
    store = FakeStore(
        min_part_bytes=5,
        capabilities=Capabilities(
            conditional_create=True, conditional_replace=True, part_copy=False
        ),
    )

    async def scenario(w):
        base = w.store.seed("file", pattern(100))
        file = w.open(base, memory_first=False)
        await file.write(50, b"changed")
        await file.commit(REQUEST)

    run(tmp_path, scenario, store=store)
    assert store.content("file") == pattern(100)[:50] + b"changed" + pattern(100)[57:]
    assert not store.requests["copy_part"]


@BOTH
def test_a_copy_of_another_object_moves_no_byte_and_follows_no_rename_of_its_own(
    tmp_path, memory_first
):
    async def scenario(w):
        source = w.store.seed("source", pattern(100))
        file = w.open(w.store.seed("file", b"old" * 40), memory_first=memory_first)
        assert not await file.borrow(source, 0, 60)
        await file.truncate(0)
        assert await file.borrow(source, 0, 60)
        assert await file.borrow(source, 60, 100)
        assert not await file.secure(REQUEST)  # the source may be removed meanwhile
        file.rebase(w.store.seed("renamed", b"old" * 40))
        assert not w.store.bytes_read
        assert await file.read(50, 60) == pattern(100)[50:]
        w.store.bytes_read = 0
        await file.commit(REQUEST)
        assert not await file.borrow(source, 100, 110)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(100)
    assert made.store.bytes_read == 0
    assert made.local_files() == []


def test_what_is_written_to_a_copy_does_not_depend_on_its_source(tmp_path):
    stored = []

    async def scenario(w):
        source = w.store.seed("source", pattern(100))
        file = w.open(memory_first=False, committer=Commits(stored_early=stored.append))
        assert await file.borrow(source, 0, 60)
        await file.write(50, b"changed")
        w.store.erase("source")
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert [version.size for version in stored] == [60]
    assert made.store.content("file") == pattern(50) + b"changed" + pattern(60)[57:]


@BOTH
def test_an_object_changed_by_somebody_else_under_a_writer_is_told_and_the_data_kept(
    tmp_path, memory_first
):
    async def scenario(w):
        base = w.store.seed("file", pattern(100))
        file = w.open(base, memory_first=memory_first)
        await file.write(50, b"mine")
        w.store.seed("file", b"theirs" * 20)
        with pytest.raises(VersionChangedError):
            await file.commit(REQUEST)
        assert file.dirty
        w.store.erase("file")
        with pytest.raises(VersionChangedError):
            await file.commit(REQUEST)
        assert await file.read(50, 4) == b"mine"
        file.abandon()

    run(tmp_path, scenario)


@BOTH
def test_a_file_emptied_first_forgets_its_base(tmp_path, memory_first):
    async def scenario(w):
        base = w.store.seed("file", pattern(100))
        file = w.open(base, memory_first=memory_first)
        await file.truncate(0)
        await file.write(0, b"new")
        assert await file.read(0, 10) == b"new"
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == b"new"
    assert not made.store.bytes_read


def test_emptying_a_file_before_streaming_it_anew_touches_no_disk(tmp_path):
    async def scenario(w):
        base = w.store.seed("file", pattern(100))
        file = w.open(base, memory_first=True)
        await file.truncate(0)
        await file.write(0, pattern(50))
        assert not list((w.journal.directory / "staging").iterdir())
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(50)


@BOTH
def test_a_truncated_object_is_copied_on_the_server(tmp_path, memory_first):
    async def scenario(w):
        base = w.store.seed("file", pattern(100))
        file = w.open(base, memory_first=memory_first)
        await file.truncate(60)
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(100)[:60]
    assert made.store.bytes_read == made.store.bytes_written == 0


@BOTH
def test_writes_after_a_commit_make_the_file_dirty_again(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(50))
        await file.commit(REQUEST)
        await file.write(20, b"again")
        assert file.dirty
        await file.commit(REQUEST)
        await file.write(60, b"more")
        assert await file.read(45, 100) == pattern(50)[45:] + bytes(10) + b"more"
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    expected = pattern(50)[:20] + b"again" + pattern(50)[25:] + bytes(10) + b"more"
    assert made.store.content("file") == expected
    assert made.local_files() == []


# -- failures --------------------------------------------------------------------------------------

DOWN = StoreUnavailableError("down")


@BOTH
@pytest.mark.parametrize("size", [5, 100])
@pytest.mark.parametrize("method", ["put", "start_multipart", "upload_part", "complete"])
def test_a_failed_commit_keeps_the_data_for_the_next_one(tmp_path, memory_first, size, method):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        w.store.fail(method, DOWN, times=4)
        failures = 0
        for start in range(0, size, 5):
            while file.size < start + 5:
                try:
                    await file.write(start, pattern(size)[start : start + 5])
                except StoreUnavailableError:
                    failures += 1
                await idle(w)
        while file.dirty:
            try:
                await file.commit(REQUEST)
            except StoreUnavailableError:
                failures += 1
                assert file.dirty
                assert await file.read(0, 3) == pattern(size)[:3]
        assert bool(failures) == ((method == "put") == (size == 5))

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(size)
    assert made.pool.used_bytes == 0
    assert made.local_files() == []


@BOTH
def test_an_upload_the_store_forgot_is_done_again_while_the_bytes_are_here(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(14))
        await idle(w)
        w.store.uploads.clear()
        if memory_first:
            with pytest.raises(Exception, match="no such upload"):
                await file.commit(REQUEST)
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(14)


def test_bytes_lost_with_a_forgotten_upload_are_told(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True)
        await file.write(0, pattern(100))
        await idle(w)
        w.store.uploads.clear()
        with pytest.raises(Exception, match="no such upload"):
            await file.commit(REQUEST)
        with pytest.raises(UnsavedDataError):
            await file.commit(REQUEST)
        file.abandon()

    run(tmp_path, scenario)


@BOTH
@pytest.mark.parametrize("size", [5, 100])
def test_a_lost_condition_is_told_and_the_data_kept(tmp_path, memory_first, size):
    async def scenario(w):
        w.store.seed("file", b"first")
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(size))
        with pytest.raises(ConditionFailedError):
            await file.commit(CommitRequest("file", condition=Condition(only_if_absent=True)))
        assert file.dirty
        assert w.store.content("file") == b"first"
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == pattern(size)


@BOTH
def test_a_file_past_the_largest_object_is_refused(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        with pytest.raises(FileTooLargeError):
            await file.write(10**15, b"x")
        with pytest.raises(FileTooLargeError):
            await file.truncate(10**15)
        assert file.size == 0

    run(tmp_path, scenario)


# -- concurrency and cancellation -----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("size", [5, 100])
def test_concurrent_commits_share_one_upload(tmp_path, memory_first, size):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(size))
        versions = []

        async def commit():
            versions.append(await file.commit(REQUEST))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(commit)
        assert versions == [w.store.objects["file"].info.version] * 5

    made = run(tmp_path, scenario)
    assert made.store.requests["put"] + made.store.requests["complete"] == 1


@BOTH
def test_concurrent_commits_share_a_failure(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, b"data")
        w.store.fail("put", DOWN)
        failures = []

        async def commit():
            with pytest.raises(StoreUnavailableError):
                await file.commit(REQUEST)
            failures.append(1)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(commit)
        assert len(failures) == 3
        await file.commit(REQUEST)

    run(tmp_path, scenario)


@BOTH
@pytest.mark.parametrize("size", [5, 100])
def test_a_write_during_a_commit_is_not_in_it_and_makes_the_file_dirty(
    tmp_path, memory_first, size
):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(size))
        gate = w.store.hold("put" if size == 5 else "complete")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.commit, REQUEST)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(file.write, 0, b"X")
            await trio.testing.wait_all_tasks_blocked()
            assert (await file.read(size - 1, 1)) == pattern(size)[-1:]
            gate.set()
        assert w.store.content("file") == pattern(size)
        assert file.dirty
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("file") == b"X" + pattern(size)[1:]


@BOTH
@pytest.mark.parametrize("method", ["put", "start_multipart", "upload_part", "complete"])
def test_a_cancelled_commit_is_taken_up_by_the_next(tmp_path, memory_first, method):
    size = 5 if method == "put" else 100

    async def scenario(w):
        file = w.open(memory_first=memory_first)
        gate = w.store.hold(method)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.write, 0, pattern(20))
            await trio.testing.wait_all_tasks_blocked()
            if method != "put":
                nursery.start_soon(file.write, 20, pattern(size)[20:])
            else:
                nursery.start_soon(file.truncate, size)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                nursery.start_soon(_open_when_blocked, gate, scope)
                await file.commit(REQUEST)
        await idle(w)
        await file.commit(REQUEST)
        assert not file.dirty

    async def _open_when_blocked(gate, scope):
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        gate.set()

    made = run(tmp_path, scenario, memory_bytes=400)
    expected = pattern(20)[:size] + pattern(size)[20:]
    assert made.store.content("file") == expected
    assert made.store.requests["put"] + made.store.requests["complete"] <= 2
    assert made.pool.used_bytes == 0


# -- unlinked and given up -------------------------------------------------------------------------


@BOTH
def test_an_unlinked_file_stays_readable_and_is_never_stored(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(5))
        file.abandon()
        assert not file.dirty
        await file.write(5, pattern(95))
        assert await file.read(0, 200) == pattern(5) + pattern(95)
        assert await file.commit(REQUEST) is None
        assert w.local_files() == []

    made = run(tmp_path, scenario)
    assert made.store.keys() == []


def test_an_unlinked_stream_says_that_its_bytes_are_gone(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True)
        await file.write(0, pattern(100))
        await idle(w)
        file.abandon()
        with pytest.raises(UnsavedDataError):
            await file.read(0, 100)

    made = run(tmp_path, scenario)
    assert made.store.keys() == []
    assert made.store.uploads == {}
    assert made.local_files() == []


@BOTH
def test_closing_without_a_commit_aborts_the_upload(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(100))
        assert file.dirty

    made = run(tmp_path, scenario)
    assert made.store.uploads == {}
    assert made.pool.used_bytes == 0
    assert not list((made.journal.directory / "uploads").iterdir())
    # The bytes on disk wait for the next mount; those in memory were never promised.
    assert bool(made.local_files()) == (not memory_first)


@BOTH
@pytest.mark.parametrize("size", [5, 100])
def test_bytes_set_aside_never_count_as_stored(tmp_path, memory_first, size):
    """Whoever has the file open still would take a 0 for the object, and what is written more for
    kept."""

    async def scenario(w):
        file = w.open(memory_first=memory_first)
        await file.write(0, pattern(size))
        assert file.set_aside(REQUEST) is not None
        assert file.set_aside(REQUEST) is None
        assert file.dirty
        with pytest.raises(UnsavedDataError, match="kept in"):
            await file.commit(REQUEST)
        with pytest.raises(UnsavedDataError, match="kept in"):
            await file.write(size, b"more")
        with pytest.raises(UnsavedDataError, match="kept in"):
            await file.truncate(1)
        with pytest.raises(UnsavedDataError, match="kept in"):
            await file.secure(REQUEST)
        assert await file.read(0, 3) == pattern(size)[:3]
        await file.close()
        [record] = w.journal.unsaved_records()
        assert record.size == size

    made = run(tmp_path, scenario)
    assert made.store.keys() == []


# -- sparse files ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("based", [False, True], ids=["new", "changed"])
def test_holes_past_the_limit_are_told_before_any_zero_is_sent(tmp_path, memory_first, based):
    async def scenario(w):
        base = w.store.seed("file", pattern(100)) if based else None
        file = w.open(base, memory_first=memory_first)
        await file.write(0, b"head")
        await file.truncate(3 * MIB)
        w.store.take_requests()
        for _ in range(2):
            with pytest.raises(FileTooLargeError, match="sparse"):
                await file.commit(REQUEST)
            with pytest.raises(FileTooLargeError, match="sparse"):
                await file.secure(REQUEST)
        assert not w.store.take_requests()
        assert file.dirty
        await file.write(2 * MIB, bytes(MIB))
        await file.commit(REQUEST)

    limits = WriteLimits(zeros_bytes=2 * MIB)
    made = run(tmp_path, scenario, store=FakeStore(), limits=limits, memory_bytes=32 * MIB)
    head = b"head" + (pattern(100)[4:] if based else b"")
    assert made.store.content("file").rstrip(b"\0") == head
    assert len(made.store.content("file")) == 3 * MIB
