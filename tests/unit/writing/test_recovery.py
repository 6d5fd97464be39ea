"""Unsaved files: set aside, found after a crash, uploaded, exported, dropped."""

import errno
import os

import pytest

from ossfs_py.errors import (
    ConditionFailedError,
    StoreUnavailableError,
    VersionChangedError,
)
from ossfs_py.model import ByteRange, CommitRequest, ListQuery
from ossfs_py.store.base import Capabilities
from ossfs_py.writing import staging as staging_module
from ossfs_py.writing.recovery import NotRecoverableError, Recovery, tidy_leftovers
from ossfs_py.writing.renames import RenameRecord
from tests.support.fake_store import FakeStore
from tests.support.writing import BOTH, TINY_PARTS, Commits, idle, pattern, run

REQUEST = CommitRequest("dir/file", {"mode": "33188"}, "text/plain")


def hint():
    return REQUEST


@BOTH
@pytest.mark.parametrize("size", [0, 5, 100])
def test_a_file_set_aside_is_uploaded_later(tmp_path, memory_first, size):
    async def scenario(w):
        file = w.open(memory_first=memory_first, committer=Commits(hint))
        for start in range(0, size, 5):
            await file.write(start, pattern(size)[start : start + 5])
        await idle(w)
        path = file.set_aside(REQUEST)
        assert path.startswith(str(w.journal.directory / "unsaved"))
        assert file.dirty
        await file.close()
        await idle(w)
        recovery = Recovery(w.journal, TINY_PARTS)
        (record,) = recovery.list()
        assert (record.key, record.size) == ("dir/file", size)
        version = recovery.upload(record.ident, w.store)
        assert version.size == size
        assert recovery.list() == []

    made = run(tmp_path, scenario)
    assert made.store.content("dir/file") == pattern(size)
    assert made.store.metadata("dir/file") == {"mode": "33188"}
    assert made.local_files() == []
    assert made.pool.used_bytes == 0
    assert all(upload.result for upload in made.store.uploads.values())


@BOTH
def test_a_changed_object_set_aside_is_finished_over_its_base(tmp_path, memory_first):
    async def scenario(w):
        base = w.store.seed("dir/file", pattern(200))
        file = w.open(base, memory_first=memory_first, committer=Commits(hint))
        await file.write(50, b"changed")
        await file.truncate(150)
        file.set_aside(REQUEST)
        recovery = Recovery(w.journal, TINY_PARTS)
        recovery.upload(recovery.list()[0].ident, w.store)

    made = run(tmp_path, scenario)
    assert made.store.content("dir/file") == pattern(200)[:50] + b"changed" + pattern(200)[57:150]
    assert made.store.requests["copy_part"]


def test_a_stream_set_aside_while_parts_are_under_way_is_finished_from_both_places(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True, committer=Commits(hint))
        await file.write(0, pattern(60))
        await idle(w)
        gate = w.store.hold("upload_part")
        await file.write(60, pattern(90)[60:])
        file.set_aside(REQUEST)
        await file.close()
        gate.set()
        await idle(w)
        assert w.journal.leftover_uploads() == []
        (record,) = w.journal.unsaved_records()
        assert record.sent is not None
        assert len(record.sent.parts) < len(record.sent.edges)
        Recovery(w.journal).upload(record.ident, w.store)

    made = run(tmp_path, scenario)
    assert made.store.content("dir/file") == pattern(90)


@pytest.mark.parametrize("recalled", [True, False])
def test_a_hidden_stream_set_aside_ends_under_its_own_key(tmp_path, recalled):
    async def scenario(w):
        file = w.open(memory_first=True, committer=Commits(hint), expects_rereads=True)
        await file.write(0, pattern(100))
        await idle(w)
        if recalled:
            await file.write(40, b"over")
        file.set_aside(REQUEST)
        await file.close()
        await idle(w)
        assert w.journal.leftover_scratch() == []
        recovery = Recovery(w.journal, TINY_PARTS)
        recovery.upload(recovery.list()[0].ident, w.store)

    made = run(tmp_path, scenario)
    expected = pattern(100)
    if recalled:
        expected = expected[:40] + b"over" + expected[44:]
    assert made.store.content("dir/file") == expected
    assert made.store.metadata("dir/file") == {"mode": "33188"}
    assert made.store.keys() == ["dir/file"]


@BOTH
@pytest.mark.parametrize("had_base", [True, False])
def test_an_object_written_by_somebody_else_is_overwritten_only_on_request(
    tmp_path, memory_first, had_base
):
    async def scenario(w):
        base = w.store.seed("dir/file", pattern(100)) if had_base else None
        file = w.open(base, memory_first=memory_first, committer=Commits(hint))
        await file.truncate(0)
        await file.write(0, b"mine")
        file.set_aside(REQUEST)
        w.store.seed("dir/file", b"theirs")
        recovery = Recovery(w.journal, TINY_PARTS)
        ident = recovery.list()[0].ident
        with pytest.raises(ConditionFailedError):
            recovery.upload(ident, w.store)
        assert w.store.content("dir/file") == b"theirs"
        recovery.upload(ident, w.store, overwrite=True)

    made = run(tmp_path, scenario)
    assert made.store.content("dir/file") == b"mine"


def test_changes_of_an_object_that_is_gone_are_kept_and_can_be_exported(tmp_path):
    async def scenario(w):
        base = w.store.seed("dir/file", pattern(100))
        file = w.open(base, memory_first=False, committer=Commits(hint))
        await file.write(90, b"x" * 20)
        file.set_aside(REQUEST)
        w.store.erase("dir/file")
        recovery = Recovery(w.journal, TINY_PARTS)
        ident = recovery.list()[0].ident
        with pytest.raises(VersionChangedError):
            recovery.upload(ident, w.store)
        exported = recovery.export(ident, tmp_path, w.store)
        assert exported.missing == (ByteRange(0, 90),)
        assert exported.path == tmp_path / "file"
        assert exported.path.read_bytes() == bytes(90) + b"x" * 20
        assert recovery.export(ident, tmp_path).path == tmp_path / f"file.{ident[:8]}"
        recovery.discard(ident, w.store)
        assert recovery.list() == []

    run(tmp_path, scenario)


def test_an_export_fetches_clean_bytes_from_the_store(tmp_path):
    async def scenario(w):
        base = w.store.seed("dir/file", pattern(100))
        file = w.open(base, memory_first=False, committer=Commits(hint))
        await file.write(40, b"x" * 20)
        await file.truncate(120)
        file.set_aside(REQUEST)
        recovery = Recovery(w.journal, TINY_PARTS)
        exported = recovery.export(recovery.list()[0].ident, tmp_path, w.store)
        assert exported.missing == ()
        expected = pattern(100)[:40] + b"x" * 20 + pattern(100)[60:] + bytes(20)
        assert exported.path.read_bytes() == expected

    run(tmp_path, scenario)


def test_bytes_that_only_an_upload_holds_are_named_by_an_export_and_aborted_by_a_discard(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True, committer=Commits(hint))
        await file.write(0, pattern(60))
        await idle(w)
        file.set_aside(REQUEST)
        recovery = Recovery(w.journal)
        ident = recovery.list()[0].ident
        exported = recovery.export(ident, tmp_path, w.store)
        held = exported.path.read_bytes()
        assert exported.missing == (ByteRange(8, 56),)
        assert held == pattern(8) + bytes(48) + pattern(60)[56:]
        w_uploads = len(w.store.uploads)
        recovery.discard(ident, w.store)
        assert len(w.store.uploads) == w_uploads - 1

    run(tmp_path, scenario)


def test_an_upload_the_store_dropped_is_told(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True, committer=Commits(hint))
        await file.write(0, pattern(60))
        await idle(w)
        file.set_aside(REQUEST)
        w.store.uploads.clear()
        recovery = Recovery(w.journal)
        with pytest.raises(NotRecoverableError, match="no longer has the upload"):
            recovery.upload(recovery.list()[0].ident, w.store)
        assert len(recovery.list()) == 1

    run(tmp_path, scenario)


def test_a_failed_recovery_can_be_repeated(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=False)
        await file.write(0, pattern(100))
        file.set_aside(REQUEST)
        recovery = Recovery(w.journal, TINY_PARTS)
        ident = recovery.list()[0].ident
        for method in ("head", "start_multipart", "upload_part", "complete"):
            # Not the file's own upload, which was begun under its former key.
            w.store.fail(method, StoreUnavailableError("down"), key=REQUEST.key)
            with pytest.raises(StoreUnavailableError):
                recovery.upload(ident, w.store)
        recovery.upload(ident, w.store)

    made = run(tmp_path, scenario)
    assert made.store.content("dir/file") == pattern(100)
    assert made.local_files() == []
    assert all(upload.result for upload in made.store.uploads.values())


@pytest.mark.parametrize("held", ["start_multipart", "upload_part"])
def test_a_file_set_aside_sends_no_further_part_though_somebody_reads_it(tmp_path, held):
    async def scenario(w):
        gate = w.store.hold(held)
        file = w.open(memory_first=False)
        await file.write(0, pattern(100))
        file.set_aside(REQUEST)
        gate.set()
        await w.context.tidying.settled()
        await idle(w)
        assert w.store.requests["upload_part"] <= w.context.limits.parts_in_flight
        assert w.store.uploads == {}
        assert w.journal.leftover_uploads() == []
        assert await file.read(0, 100) == pattern(100)

    run(tmp_path, scenario)


def test_an_unknown_or_damaged_file_is_told_in_one_sentence(tmp_path):
    async def scenario(w):
        recovery = Recovery(w.journal)
        with pytest.raises(NotRecoverableError, match="no unsaved file"):
            recovery.upload("nothing", w.store)
        file = w.open(memory_first=False, committer=Commits(hint))
        await file.write(0, b"data")
        file.set_aside(REQUEST)
        ident = recovery.list()[0].ident
        (w.journal.directory / "unsaved" / f"{ident}.json").write_text("{")
        with pytest.raises(NotRecoverableError, match="export"):
            recovery.upload(ident, w.store)
        assert recovery.export(ident, tmp_path).path.read_bytes() == b"data"

    run(tmp_path, scenario)


@pytest.mark.parametrize("conditional", [True, False])
def test_a_dirty_file_of_a_dead_daemon_is_finished(tmp_path, conditional):
    store = FakeStore(
        min_part_bytes=5,
        capabilities=Capabilities(
            conditional_create=conditional, conditional_replace=conditional, part_copy=True
        ),
    )

    async def scenario(w):
        fresh = w.open(memory_first=False, committer=Commits(lambda: CommitRequest("fresh")))
        await fresh.write(0, pattern(100))
        base = store.seed("changed", pattern(100))
        changed = w.open(
            base, memory_first=False, committer=Commits(lambda: CommitRequest("changed"))
        )
        await changed.write(30, b"new")
        await idle(w)
        # As after a kill: nothing was closed.
        assert len(w.journal.claim_leftovers()) == 2
        assert tidy_leftovers(w.journal, store) == 1
        recovery = Recovery(w.journal, TINY_PARTS)
        for record in recovery.list():
            recovery.upload(record.ident, store)

    made = run(tmp_path, scenario, store=store)
    assert store.content("fresh") == pattern(100)
    assert store.content("changed") == pattern(100)[:30] + b"new" + pattern(100)[33:]
    assert made.journal.directory.exists()


def test_what_the_store_refuses_to_tidy_stays_for_the_next_mount(tmp_path):
    async def scenario(w):
        file = w.open(memory_first=True, committer=Commits(hint), expects_rereads=True)
        await file.write(0, pattern(100))
        await idle(w)
        w.store.fail("abort", StoreUnavailableError("down"))
        w.store.fail("delete", StoreUnavailableError("down"))
        assert tidy_leftovers(w.journal, w.store) == 0
        assert tidy_leftovers(w.journal, w.store) == 2
        assert tidy_leftovers(w.journal, w.store) == 0
        file.abandon()

    made = run(tmp_path, scenario)
    assert made.store.uploads == {}


# -- a full disk -----------------------------------------------------------------------------------


class Disk:
    """Local writes fail once so many bytes are written."""

    def __init__(self, monkeypatch, room):
        self.room = room
        self._pwrite = os.pwrite
        monkeypatch.setattr(staging_module.os, "pwrite", self.pwrite)

    def pwrite(self, fd, data, offset):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "full")
        done = self._pwrite(fd, data[: self.room], offset)
        self.room -= done
        return done


def test_a_full_disk_is_told_at_the_write_and_what_was_written_is_kept(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, 30)

    async def scenario(w):
        file = w.open(memory_first=False, committer=Commits(hint))
        await file.write(0, pattern(20))
        with pytest.raises(OSError, match="full"):
            await file.write(20, pattern(40)[20:])
        assert file.size == 30
        with pytest.raises(OSError, match="full"):
            await file.write(30, b"x")
        assert await file.read(0, 100) == pattern(40)[:30]
        disk.room = 1000
        await file.write(30, pattern(40)[30:])
        await file.commit(REQUEST)

    made = run(tmp_path, scenario)
    assert made.store.content("dir/file") == pattern(40)


def test_a_stream_that_cannot_leave_memory_for_a_full_disk_stays_there(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, 3)

    async def scenario(w):
        file = w.open(memory_first=True, committer=Commits(hint))
        await file.write(0, pattern(8))
        w.store.fail("start_multipart", StoreUnavailableError("down"))
        with pytest.raises(OSError, match="full"):
            await file.write(8, b"more")  # there is no memory for a second part
        with pytest.raises(OSError, match="full"):
            file.set_aside(REQUEST)
        await file.truncate(6)
        assert await file.read(0, 20) == pattern(8)[:6]
        disk.room = 1000
        await file.write(20, b"x" * 5)
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, memory_bytes=11)
    assert made.store.content("dir/file") == pattern(8)[:6] + bytes(14) + b"x" * 5
    assert made.local_files() == []


@BOTH
def test_a_file_that_was_stored_just_before_the_kill_is_no_conflict(tmp_path, memory_first):
    async def scenario(w):
        file = w.open(memory_first=memory_first, committer=Commits(hint))
        await file.write(0, pattern(5))
        file.set_aside(REQUEST)
        w.store.seed("dir/file", pattern(5))
        recovery = Recovery(w.journal, TINY_PARTS)
        assert recovery.upload(recovery.list()[0].ident, w.store).size == 5
        assert recovery.list() == []

    made = run(tmp_path, scenario)
    assert not made.store.requests["put"]
    assert made.store.content("dir/file") == pattern(5)


@pytest.mark.parametrize("stored", [pattern(5), pattern(6)], ids=["its bytes", "others"])
def test_what_the_killed_daemon_had_sent_may_be_stored_while_the_next_one_looks(tmp_path, stored):
    """The store works on a request that it has, whatever became of who sent it."""

    async def scenario(w):
        file = w.open(memory_first=True, committer=Commits(hint))
        await file.write(0, pattern(5))
        file.set_aside(REQUEST)

        def arrives(method, key):
            if method == "put" and key == "dir/file" and "dir/file" not in w.store.objects:
                w.store.seed("dir/file", stored)

        w.store.on_request = arrives
        recovery = Recovery(w.journal, TINY_PARTS)
        (record,) = recovery.list()
        if stored == pattern(5):
            assert recovery.upload(record.ident, w.store).size == 5
            assert recovery.list() == []
        else:
            with pytest.raises(ConditionFailedError):
                recovery.upload(record.ident, w.store)
            assert recovery.list() == [record]

    assert run(tmp_path, scenario).store.content("dir/file") == stored


@pytest.mark.parametrize(
    ("old", "new", "is_copied", "left"),
    [
        (("a", "b", "c"), ("a", "b"), False, {"old/": 3, "new/": 0}),
        (("a", "b"), ("a", "b"), True, {"old/": 0, "new/": 2}),
        (("b", "c"), ("a", "b", "c"), True, {"old/": 0, "new/": 3}),
        (("a", "b"), (), False, {"old/": 2, "new/": 0}),
        (("b", "c"), ("a", "b", "c"), None, {"old/": 0, "new/": 3}),
    ],
    ids=["while copying", "copied", "while deleting", "before copying", "of an older version"],
)
def test_a_rename_cut_short_leaves_one_whole_directory(tmp_path, old, new, is_copied, left):
    async def scenario(w):
        for name in old:
            w.store.seed(f"old/{name}", name.encode())
        for name in new:
            w.store.seed(f"new/{name}", name.encode())
        w.journal.write_rename(RenameRecord("old/", "new/", is_copied))
        tidy_leftovers(w.journal, w.store)
        for prefix, count in left.items():
            assert len(w.store.list_page(ListQuery(prefix, delimiter="")).objects) == count
        assert w.journal.leftover_renames() == []

    run(tmp_path, scenario)
