"""Secured files are brought to the disk in groups, behind those who closed them."""

import errno
import os
import uuid
from pathlib import Path

import pytest
import trio

from ossfs_py.model import CommitRequest
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.removals import RemovalRecord
from tests.support.writing import SMALL, Writing, writing

REQUEST = CommitRequest("file")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The file names of every fsync, as they come."""
    names: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        names.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


async def secured(w: Writing, content: bytes) -> str:
    """A file that is closed with write-back; its id in the journal."""
    before = set((w.journal.directory / "staging").glob("*.json"))
    file = w.open(memory_first=False)
    await file.write(0, content)
    assert await file.secure(REQUEST)
    (record,) = set((w.journal.directory / "staging").glob("*.json")) - before
    return record.stem


def test_closing_waits_for_no_disk_and_one_group_brings_all_there(
    tmp_path: Path, synced: list[str]
) -> None:
    async def main() -> None:
        async with writing(tmp_path) as w:
            idents = [await secured(w, b"%d" % number) for number in range(3)]
            assert synced == []
            await w.context.group_sync.sync()
            expected = [f"{ident}.{kind}" for ident in idents for kind in ("data", "json")]
            assert synced == [*expected, "staging"]
            await w.context.group_sync.sync()
            assert len(synced) == 7

    trio.run(main)


def test_small_files_removals_and_directories_are_brought_there_together(
    tmp_path: Path, synced: list[str]
) -> None:
    async def main() -> None:
        async with writing(tmp_path, limits=SMALL) as w:
            group_sync = w.context.group_sync
            for _ in range(3):
                file = w.open(memory_first=False)
                await file.write(0, b"1")
                assert await file.secure(REQUEST)
            await group_sync.record_marker(MarkerRecord(uuid.uuid4().hex, "directory/", {}))
            await group_sync.record_removal(RemovalRecord("removed", ()))
            assert synced == []
            await group_sync.sync()
            assert [Path(name).suffix for name in synced] == [".log", ""]
            await group_sync.sync()
            assert len(synced) == 2
            await file.redescribe(CommitRequest("renamed"))
            await group_sync.sync()
            assert len(synced) == 3

    trio.run(main)


def test_a_group_comes_by_itself(tmp_path: Path, synced: list[str]) -> None:
    async def main() -> None:
        async with writing(tmp_path) as w, trio.open_nursery() as nursery:
            nursery.start_soon(w.context.group_sync.run)
            await secured(w, b"content")
            with trio.fail_after(60):
                while "staging" not in synced:  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_what_was_uploaded_before_its_turn_is_left_alone(tmp_path: Path, synced: list[str]) -> None:
    async def main() -> None:
        async with writing(tmp_path) as w:
            file = w.open(memory_first=False)
            await file.write(0, b"content")
            assert await file.secure(REQUEST)
            await file.commit(REQUEST)
            await w.context.group_sync.sync()
            assert synced == []

    trio.run(main)


def test_a_disk_that_refuses_is_told_and_the_upload_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fsync(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def main() -> None:
        async with writing(tmp_path) as w:
            file = w.open(memory_first=False)
            await file.write(0, b"content")
            assert await file.secure(REQUEST)
            monkeypatch.setattr(os, "fsync", fsync)
            await w.context.group_sync.sync()
            assert "would not survive a power loss" in caplog.text
            assert await file.commit(REQUEST) is not None
            assert w.store.content("file") == b"content"

    trio.run(main)
