"""``temp``: what was just written is read back from where it was written."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from ossfs_py.datapath import justwritten
from ossfs_py.datapath.justwritten import JustWritten, LentBackend
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange, ObjectVersion
from ossfs_py.reading.secondhome import BlockLostError
from ossfs_py.writing.content import LentFile
from tests.support.filesystems import Mounted, on_mount

BYTES = os.urandom(60)


def run(root: Path, test: Callable[[Mounted], Awaitable[None]], **options: object) -> None:
    on_mount("temp", root, test, **options)


@pytest.mark.parametrize("write_back", [True, False])
def test_a_file_is_read_back_without_a_request_also_after_its_rename(
    tmp_path: Path, write_back: bool
) -> None:
    """git writes a pack under a temporary name, syncs it, renames it, and reads it."""

    async def test(m: Mounted) -> None:
        await m.write_file(("tmp",), BYTES)
        await m.fs.sync()
        await m.rename(("tmp",), ("pack",))
        await m.fs.sync()
        m.store.take_requests()
        assert await m.read_file(("pack",)) == BYTES
        assert m.store.take_requests().get("get_range_into", 0) == 0
        assert m.store.content("pack") == BYTES

    run(tmp_path, test, write_back=write_back)


def test_it_is_kept_for_a_moment_only(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(("file",), BYTES)
        for _ in range(3):
            await m.bench.later(justwritten._KEPT_SECONDS)
        m.store.take_requests()
        assert await m.read_file(("file",)) == BYTES
        assert m.store.take_requests()["get_range_into"] > 0

    run(tmp_path, test)


def test_what_others_stored_since_is_read_from_the_store(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(("file",), BYTES)
        m.store.seed("file", b"another client's")
        await m.expire()
        assert await m.read_file(("file",)) == b"another client's"

    run(tmp_path, test)


def test_a_file_that_is_written_again_meanwhile_gives_no_mixed_bytes(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        opened = await m.open(("file",), os.O_RDWR | os.O_CREAT)
        await m.write(opened, 0, BYTES)
        await m.fsync(opened)
        await m.write(opened, 10, b"changed")
        assert await m.read(opened, 0, len(BYTES)) == (BYTES[:10] + b"changed" + BYTES[17:])
        await m.close(opened)
        assert await m.read_file(("file",)) == m.store.content("file")

    run(tmp_path, test)


class Loans:
    """Files that are lent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.is_changed = False
        self.returned: list[int] = []

    def lend(self, size: int, spans: ExtentSet | None = None) -> LentFile:
        path = self._root / "lent"
        path.write_bytes(BYTES[:size])
        fd = os.open(path, os.O_RDONLY)

        def give_back() -> None:
            os.close(fd)
            self.returned.append(fd)

        whole = ExtentSet([ByteRange(0, size)]) if spans is None else spans
        return LentFile(fd, whole, lambda: not self.is_changed, give_back)


def test_bytes_that_have_changed_are_lost(tmp_path: Path) -> None:
    loans = Loans(tmp_path)
    backend = LentBackend(ObjectVersion("key", "e", 60), loans.lend(60))
    buffer = memoryview(bytearray(40))
    backend.load_into(20, buffer)
    assert bytes(buffer) == BYTES[20:60]
    assert backend.present_until(20) == 60
    assert not backend.keep(0, buffer)
    loans.is_changed = True
    with pytest.raises(BlockLostError):
        backend.load_into(0, buffer)
    backend.note_lost(0, 30)
    assert backend.present_until(0) == 0
    assert backend.next_present(0) == 30
    backend.close()
    assert loans.returned


def test_few_files_and_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(justwritten, "_MOST_FILES", 3)
    monkeypatch.setattr(justwritten, "_MOST_BYTES", 100)
    loans = Loans(tmp_path)

    async def main() -> None:
        kept = JustWritten()
        versions = [ObjectVersion(f"key{number}", "e", 30) for number in range(5)]
        for version in versions:
            kept.keep(version, loans.lend(30))
        assert len(loans.returned) == 2
        kept.keep(ObjectVersion("part", "e", 30), loans.lend(30, ExtentSet([ByteRange(0, 15)])))
        assert len(loans.returned) == 3
        kept.keep(ObjectVersion("long", "e", 55), loans.lend(55))
        assert len(loans.returned) == 5
        assert kept.take(versions[0]) is None
        copy = ObjectVersion("copy", "other", 30)
        kept.copied(versions[4], copy)
        backend = kept.take(copy)
        assert backend is not None
        assert kept.take(copy) is None
        backend.close()
        kept.close()
        assert len(loans.returned) == 7

    trio.run(main)
