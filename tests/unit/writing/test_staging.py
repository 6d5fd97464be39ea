"""One staging file: bytes, holes, a full disk, and what stays on disk."""

import errno
import json
import os
import threading

import pytest
import trio

from ossfs_py.model import ByteRange, CommitRequest, ObjectVersion
from ossfs_py.runtime.diskroom import DiskRoom
from ossfs_py.runtime.workers import Workers
from ossfs_py.writing import staging as staging_module
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.staging import Staging
from tests.support.descriptors import open_below

REQUEST = CommitRequest("file")
BASE = ObjectVersion("file", "etag", 50)


def run(tmp_path, scenario):
    async def main():
        journal = Journal(tmp_path / "state")
        local = Workers("local", 2)
        try:
            with trio.fail_after(120):
                await scenario(await Staging.create(journal, local, DiskRoom(), lambda: 0), journal)
        finally:
            local.close()
            assert local.join(120)
            journal.close()

    trio.run(main)


def names(journal):
    return sorted(path.suffix for path in (journal.directory / "staging").iterdir())


def test_bytes_are_where_they_were_written_and_holes_are_zeros(tmp_path):
    async def scenario(staging, journal):
        assert await staging.write(5, b"hello") == (5, None)
        assert await staging.read(3, 20) == b"\0\0hello"
        await staging.truncate(7)
        await staging.truncate(9)
        assert await staging.read(5, 10) == b"he\0\0"
        body = staging.body(ByteRange(5, 7))
        assert os.pread(body.fd, body.size, body.offset) == b"he"
        staging.close()
        assert names(journal) == []

    run(tmp_path, scenario)


def test_the_file_and_its_directory_are_the_owners_alone_and_no_link_is_followed(tmp_path):
    async def scenario(staging, journal):
        (path,) = (journal.directory / "staging").iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        staging.close()

    run(tmp_path, scenario)


def test_a_recorded_file_stays_for_the_next_mount_and_a_forgotten_one_goes(tmp_path):
    async def scenario(staging, journal):
        await staging.write(0, b"data")
        await staging.record(DirtyRecord.of(staging.ident, REQUEST))
        assert staging.recorded
        assert names(journal) == [".data", ".json"]
        staging.forget_record()
        assert names(journal) == [".data"]
        await staging.record(DirtyRecord.of(staging.ident, REQUEST))
        staging.close()
        assert names(journal) == [".data", ".json"]
        assert journal.claim_leftovers()

    run(tmp_path, scenario)


def test_writes_over_a_base_are_logged_and_fills_are_not(tmp_path):
    async def scenario(staging, journal):
        record = DirtyRecord.of(staging.ident, REQUEST).replaced(base=BASE, base_valid=50, size=50)
        await staging.record(record)
        await staging.write(1, b"one")
        await staging.write(20, b"fill", dirty=False)
        await staging.record(record)
        await staging.write(10, b"ten")
        await staging.truncate(30)
        assert names(journal) == [".data", ".json", ".log", ".log"]
        staging.close()
        journal.claim_leftovers()
        (found,) = journal.unsaved_records()
        assert list(found.dirty) == [ByteRange(10, 13)]
        assert (found.size, found.base_valid) == (30, 30)

    run(tmp_path, scenario)


def test_an_unlinked_file_is_usable_until_closed(tmp_path):
    async def scenario(staging, journal):
        await staging.write(0, b"data")
        staging.unlink()
        assert names(journal) == []
        assert await staging.read(0, 4) == b"data"
        staging.close()

    run(tmp_path, scenario)


def test_closing_waits_for_whoever_still_reads_the_file(tmp_path):
    async def scenario(staging, journal):
        await staging.write(0, b"data")
        body = staging.body(ByteRange(0, 4))
        staging.uses.enter()
        staging.close()
        assert os.pread(body.fd, 4, 0) == b"data"
        with pytest.raises(RuntimeError):
            staging.uses.enter()
        staging.uses.leave()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pread(body.fd, 4, 0)

    run(tmp_path, scenario)


def test_a_full_disk_tells_how_much_went_in(tmp_path, monkeypatch):
    calls = []

    def pwrite(fd, data, offset):
        calls.append(offset)
        if offset >= 4:
            raise OSError(errno.ENOSPC, "full")
        return original(fd, data[:4], offset)

    original = os.pwrite

    async def scenario(staging, journal):
        monkeypatch.setattr(staging_module.os, "pwrite", pwrite)
        done, error = await staging.write(0, b"12345678")
        assert done == 4
        assert error.errno == errno.ENOSPC
        done, error = await staging.write(8, b"x")
        assert done == 0
        assert error.errno == errno.ENOSPC
        with pytest.raises(OSError, match="full"):
            staging.write_now(4, memoryview(b"x"))
        monkeypatch.undo()
        assert await staging.read(0, 10) == b"1234"
        staging.close()

    run(tmp_path, scenario)


def test_a_log_entry_that_does_not_fit_leaves_no_half_of_itself(tmp_path, monkeypatch):
    original = os.write
    full = []

    def write(fd, data):
        if full:
            raise OSError(errno.ENOSPC, "full")
        full.append(1)
        return original(fd, data[:7])

    async def scenario(staging, journal):
        await staging.record(
            DirtyRecord.of(staging.ident, REQUEST).replaced(base=BASE, base_valid=50, size=50)
        )
        monkeypatch.setattr(staging_module.os, "write", write)
        done, error = await staging.write(0, b"data")
        assert done == 4
        assert error.errno == errno.ENOSPC
        monkeypatch.undo()
        await staging.write(10, b"more")
        staging.close()
        journal.claim_leftovers()
        (found,) = journal.unsaved_records()
        assert list(found.dirty) == [ByteRange(10, 14)]

    run(tmp_path, scenario)


def test_a_record_that_cannot_be_written_is_told_and_the_old_one_stays(tmp_path, monkeypatch):
    async def scenario(staging, journal):
        record = DirtyRecord.of(staging.ident, REQUEST).replaced(base=BASE, base_valid=50, size=50)
        await staging.record(record)

        def write_record(_record):
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(journal, "write_record", write_record)
        with pytest.raises(OSError, match="full"):
            await staging.record(record.replaced(key="other"))
        await staging.write(3, b"x")
        staging.close()
        journal.claim_leftovers()
        (found,) = journal.unsaved_records()
        assert found.key == "file"
        assert list(found.dirty) == [ByteRange(3, 4)]

    run(tmp_path, scenario)


def test_a_cancelled_write_is_finished_before_the_caller_goes_on(tmp_path):
    async def scenario(staging, journal):
        with trio.CancelScope() as scope:
            scope.cancel()
            await staging.write(0, b"whole")
        assert await staging.read(0, 9) == b"whole"
        staging.close()

    run(tmp_path, scenario)


def stopped_in(monkeypatch, owner, name):
    """A call of ``owner.name`` waits where it begins: what tells that it has, and lets it go on."""
    begun, go_on = threading.Event(), threading.Event()
    real = getattr(owner, name)

    def stopped(*args):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(owner, name, stopped)
    return begun, go_on


async def while_stopped(stop, call, act):
    """Let ``call`` stop on its thread, do ``act``, and let the call end."""
    begun, go_on = stop
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        assert await trio.to_thread.run_sync(begun.wait, 60)
        act()
        go_on.set()


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_is_removed_while_it_is_recorded_leaves_nothing(tmp_path, monkeypatch, times):
    async def scenario(staging, journal):
        record = DirtyRecord.of(staging.ident, REQUEST).replaced(base=BASE, base_valid=50)
        for _ in range(times - 1):
            await staging.record(record)
        stop = stopped_in(monkeypatch, journal, "write_record")
        await while_stopped(stop, lambda: staging.record(record), staging.unlink)
        assert names(journal) == []
        assert not staging.recorded
        assert await staging.write(0, b"still usable") == (12, None)
        staging.close()
        assert names(journal) == []

    run(tmp_path, scenario)


def test_a_file_that_is_unlinked_while_it_is_recorded_is_recorded_as_unlinked(
    tmp_path, monkeypatch
):
    async def scenario(staging, journal):
        record = DirtyRecord.of(staging.ident, REQUEST).replaced(owner="1")
        stop = stopped_in(monkeypatch, journal, "write_record")
        await while_stopped(stop, lambda: staging.record(record), staging.mark_unlinked)
        (path,) = (journal.directory / "staging").glob("*.json")
        assert json.loads(path.read_text())["unlinked"] is True
        staging.unlink()
        staging.close()

    run(tmp_path, scenario)


def test_a_write_that_runs_while_the_file_is_removed_puts_its_log_entry_into_no_other_file(
    tmp_path, monkeypatch
):
    async def scenario(staging, journal):
        await staging.record(
            DirtyRecord.of(staging.ident, REQUEST).replaced(base=BASE, base_valid=50)
        )
        others = []

        def remove():
            staging.unlink()
            # The next files that are opened get the lowest free descriptors.
            others.extend((tmp_path / f"other{n}").open("wb") for n in range(4))

        stop = stopped_in(monkeypatch, staging_module, "_append")
        await while_stopped(stop, lambda: staging.write(0, b"bytes"), remove)
        for other in others:
            other.close()
        assert {path.stat().st_size for path in tmp_path.glob("other*")} == {0}
        staging.close()
        assert not any(path.endswith(".log (deleted)") for path in open_below(tmp_path))

    run(tmp_path, scenario)
