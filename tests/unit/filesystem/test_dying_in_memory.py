"""A daemon of the ``direct`` data path that dies: what was in its memory only is told as unsaved,
and everything else goes on."""

import errno
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from ossfs_py.errors import NoSuchEntryError, UnsavedDataError
from ossfs_py.model import AttributeChange
from ossfs_py.namespace.inode import ROOT_NUMBER
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.recovery import NotRecoverableError, Recovery
from tests.support.dying import (
    ADDED,
    BEFORE,
    GID,
    UID,
    Case,
    dies,
    life,
    opened,
    run,
    told_handles,
    whole,
    written,
)
from tests.support.dying import WatchedStore as Store

BYTES = b"bytes that are in memory only, and some parts of them sent"


async def _created(case: Case, flags: int = os.O_RDWR) -> int:
    reply, _ = await case.fs.create(ROOT_NUMBER, b"new", 0o640, flags | os.O_CREAT, UID, GID)
    case.numbers["new"] = reply.handle
    return reply.handle


@pytest.mark.parametrize("content", [b"abc", BYTES], ids=["small", "sent"])
def test_what_was_in_memory_is_refused_told_and_begun_anew(content: bytes, tmp_path: Path) -> None:
    memory, store = os.memfd_create("first"), Store()

    async def first() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (_, fs):
            await written(Case(fs, store), await _created(Case(fs, store)), 0, content)
            told_handles(fs, memory)

    async def second() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (one, fs):
            case = Case(fs, store, {"new": 1})
            entry = await fs.lookup(ROOT_NUMBER, b"new")
            assert entry.attributes.size == len(content)
            for _ in range(2):
                with pytest.raises(UnsavedDataError):
                    await fs.write(1, len(content), b"more")
                with pytest.raises(UnsavedDataError):
                    await fs.fsync(1)
                with pytest.raises(UnsavedDataError):
                    await fs.flush(1)
                with pytest.raises(UnsavedDataError):
                    await whole(case, "new")
            (record,) = one.bench.writes.journal.unsaved_records()
            assert (record.key, record.size, record.vanished) == ("new", len(content), True)
            recovery = Recovery(one.bench.writes.journal)
            for attempt in (
                partial(recovery.upload, record.ident, store),
                partial(recovery.export, record.ident, tmp_path),
            ):
                with pytest.raises(NotRecoverableError, match="write the file again"):
                    attempt()
            assert store.keys() == []

    async def third() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (one, fs):
            case = Case(fs, store, {"new": 1})
            assert len(list(one.bench.writes.journal.unsaved_records())) == 1  # told once
            with pytest.raises(UnsavedDataError):
                await fs.fsync(1)
            inode = (await fs.lookup(ROOT_NUMBER, b"new")).inode
            await fs.set_attributes(inode, AttributeChange(), 0, 1)
            await written(case, 1, 0, b"anew")
            await fs.flush(1)
            assert store.content("new") == b"anew" == await whole(case, "new")
            await fs.release(1)

    for each in (first, second, third):
        run(each)
    os.close(memory)


def test_a_name_whose_bytes_have_gone_is_free_after_the_close(tmp_path: Path) -> None:
    memory, store = os.memfd_create("first"), Store()

    async def first() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (_, fs):
            await written(Case(fs, store), await _created(Case(fs, store)), 0, BYTES)
            told_handles(fs, memory)

    async def second() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (_, fs):
            await fs.release(1)
            with pytest.raises(NoSuchEntryError):
                await fs.lookup(ROOT_NUMBER, b"new")
            case = Case(fs, store)
            await written(case, await _created(case), 0, b"again")
            await fs.flush(case.numbers["new"])
            assert store.content("new") == b"again"

    run(first)
    run(second)
    os.close(memory)


@pytest.mark.parametrize("emptied", [False, True], ids=["new", "emptied"])
def test_an_empty_file_has_lost_nothing(emptied: bool, tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        if emptied:
            await opened(case, "new", os.O_RDWR | os.O_TRUNC)
        else:
            await _created(case)

    async def call(case: Case) -> None:
        await case.fs.flush(case.numbers["new"])

    async def check(case: Case) -> None:
        assert case.store.content("new") == b"" == await whole(case, "new")
        await written(case, case.numbers["new"], 0, b"more")
        await case.fs.flush(case.numbers["new"])
        assert case.store.content("new") == b"more"

    objects = {"new": BEFORE} if emptied else {}
    assert dies(tmp_path, prepare, call, check, objects, data_path="direct") > 2


def test_a_removed_file_that_was_in_memory_is_refused_and_not_told(tmp_path: Path) -> None:
    memory, store = os.memfd_create("first"), Store()

    async def first() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (_, fs):
            await written(Case(fs, store), await _created(Case(fs, store)), 0, b"abc")
            await fs.unlink(ROOT_NUMBER, b"new")
            told_handles(fs, memory)

    async def second() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (one, fs):
            with pytest.raises(UnsavedDataError):
                await whole(Case(fs, store, {"new": 1}), "new")
            await fs.flush(1)
            await fs.release(1)
            assert not list(one.bench.writes.journal.unsaved_records())
            assert store.keys() == []

    run(first)
    run(second)
    os.close(memory)


def test_what_is_appended_to_a_stored_file_survives_on_direct_too(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        await opened(case, "log", os.O_WRONLY | os.O_APPEND)
        await written(case, case.numbers["log"], len(BEFORE), ADDED)

    async def call(case: Case) -> None:
        await case.fs.fsync(case.numbers["log"])

    async def check(case: Case) -> None:
        assert case.store.content("log") == BEFORE + ADDED

    assert dies(tmp_path, prepare, call, check, {"log": BEFORE}, data_path="direct") > 3


def test_a_commit_from_memory_is_stored_or_refused(tmp_path: Path) -> None:
    """Whatever a program is told, what is in the bucket is the whole file, or none of it."""
    refused: list[bool] = []

    async def prepare(case: Case) -> None:
        await written(case, await _created(case), 0, BYTES)

    async def call(case: Case) -> None:
        if case.since_ns is None:
            await case.fs.flush(case.numbers["new"])
            return
        before = len(refused)
        with suppress(UnsavedDataError):
            await case.fs.flush(case.numbers["new"])
            refused.append(False)
        refused[before:] = refused[before:] or [True]
        if refused[-1]:
            assert case.store.objects.get("new") is None or case.store.content("new") == BYTES
            unsaved = case.store.root / "state" / "unsaved"
            assert len(list(unsaved.iterdir())) == 1
            for path in unsaved.iterdir():
                path.unlink()
            inode = (await case.fs.lookup(ROOT_NUMBER, b"new")).inode
            await case.fs.set_attributes(inode, AttributeChange(), 0, case.numbers["new"])
            await written(case, case.numbers["new"], 0, BYTES)
            await case.fs.flush(case.numbers["new"])

    async def check(case: Case) -> None:
        assert case.store.content("new") == BYTES

    dies(tmp_path, prepare, call, check, {}, data_path="direct")
    assert refused[0]  # before the call
    assert not refused[-1]  # before the answer


@pytest.mark.parametrize("hidden", [False, True], ids=["own", "hidden"])
@pytest.mark.parametrize("content", [b"abc", BYTES], ids=["small", "sent"])
def test_before_an_upgrade_bytes_leave_memory(content: bytes, hidden: bool, tmp_path: Path) -> None:
    memory, store = os.memfd_create("first"), Store()
    streams = content == BYTES and not hidden

    async def first() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (one, fs):
            fs.streams = one.bench.writes.context.streams
            fs.stream_seconds = 0.5
            case = Case(fs, store)
            handle = await _created(case, os.O_RDWR if hidden else os.O_WRONLY)
            await written(case, handle, 0, content)
            if streams:
                while not all(each.file.lost for each in fs._opened):  # noqa: ASYNC110 - a store
                    await trio.sleep(0.01)
                with pytest.raises(UnsavedDataError, match="/new is sent to the store while"):
                    await fs.leave_memory()
                fs.use_memory()
                await fs.flush(handle)
            await fs.leave_memory()
            await written(case, handle, len(content), b"more")
            reply, _ = await fs.create(
                ROOT_NUMBER, b"other", 0o640, os.O_WRONLY | os.O_CREAT, UID, GID
            )
            await written(case, reply.handle, 0, b"other")
            told_handles(fs, memory)
            assert streams or "new" not in store.objects  # nobody saw half a file

    async def second() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (one, fs):
            for handle in (1, 2):
                await fs.flush(handle)
                await fs.release(handle)
            assert store.content("new") == content + b"more"
            assert store.content("other") == b"other"
            assert not list(one.bench.writes.journal.unsaved_records())

    run(first)
    run(second)
    os.close(memory)


def test_with_the_disk_full_what_was_in_memory_is_refused_and_not_taken_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory, store = os.memfd_create("first"), Store()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def first() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (_, fs):
            await written(Case(fs, store), await _created(Case(fs, store)), 0, BYTES)
            told_handles(fs, memory)

    async def second() -> None:
        async with life(memory, tmp_path / "1", store, "direct") as (_, fs):
            with pytest.raises(UnsavedDataError):
                await fs.flush(1)
            await fs.release(1)
            assert store.keys() == []

    run(first)
    monkeypatch.setattr(Journal, "set_aside", full)
    run(second)
    assert "the state directory cannot be written: No space left on device" in caplog.text
    os.close(memory)
