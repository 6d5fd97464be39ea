"""Write-back where things go wrong: names used again and again, others at work, a store away."""

import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.filesystem.writeback import MAX_PENDING_FILES
from ossfs_py.model import AttributeChange
from ossfs_py.writing.context import WriteLimits
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.segments import replayed
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, on_mount
from tests.support.writing import TINY_PARTS


def on_write_back(
    root: Path, test: Callable[[Mounted], Awaitable[None]], store: FakeStore | None = None
) -> FakeStore:
    return on_mount("temp", root, test, store=store, write_back=True, negative_ttl_seconds=60.0)


def content(store: FakeStore) -> dict[str, bytes]:
    return {key: store.content(key) for key in store.keys()}  # noqa: SIM118 - not a mapping


def test_a_name_made_and_removed_again_and_again_is_sent_once(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        for number in range(100):
            await m.write_file(("name",), b"%d" % number)
            await m.unlink(("name",))
        await m.write_file(("name",), b"last")
        await m.fs.sync()
        assert m.store.requests["put"] == 1

    assert content(on_write_back(tmp_path, test)) == {"name": b"last"}


@pytest.mark.parametrize("what", ["file", "empty", "link", "renamed"])
def test_a_directory_is_gone_before_what_is_made_in_its_place_is_stored(
    tmp_path: Path, what: str
) -> None:
    """SeaweedFS would take an empty file, or a link, for the directory, and delete it."""

    async def test(m: Mounted) -> None:
        await m.mkdir(("name",), 0o755)
        await m.mkdir(("name", "inside"), 0o755)
        await m.write_file(("name", "inside", "file"), b"")
        await m.write_file(("other",), b"")
        await m.fs.sync()
        await m.unlink(("name", "inside", "file"))
        await m.rmdir(("name", "inside"))
        await m.rmdir(("name",))
        m.store.log.clear()
        if what == "link":
            await m.symlink(b"target", ("name",))
            await m.fs.sync()
        elif what == "renamed":
            await m.rename(("other",), ("name",))
        else:
            opened = await m.open(("name",), os.O_WRONLY | os.O_CREAT)
            if what == "file":
                await m.write(opened, 0, b"content")
            await m.fs.fsync(opened.handle)  # before removals are sent
            await m.close(opened)
        await m.fs.sync()
        changes = [each for each in m.store.log if each[0] in ("put", "copy", "delete")]
        assert changes[:3] == [
            ("delete", "name/inside/file"),
            ("delete", "name/inside/"),
            ("delete", "name/"),
        ]
        assert "name/" not in m.store.objects
        assert "name" in m.store.objects

    on_write_back(tmp_path, test)


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_file_is_gone_before_the_directory_in_its_place_is_stored(
    tmp_path: Path, *, is_renamed: bool
) -> None:
    """SeaweedFS refuses it else."""

    async def test(m: Mounted) -> None:
        await m.write_file(("name",), b"")
        await m.mkdir(("other",), 0o755)
        await m.fs.sync()
        await m.unlink(("name",))
        m.store.log.clear()
        if is_renamed:
            await m.rename(("other",), ("name",))
        else:
            await m.mkdir(("name",), 0o755)
            opened = await m.open(("name", "file"), os.O_WRONLY | os.O_CREAT)
            await m.fs.fsync(opened.handle)  # after the directory, and before removals are sent
            await m.close(opened)
        await m.fs.sync()
        changes = [each for each in m.store.log if each[0] in ("put", "copy", "delete")]
        assert changes[0] == ("delete", "name")
        assert "name/" in m.store.objects

    on_write_back(tmp_path, test)


def test_chains_and_swaps_of_names_whose_files_wait_end_as_on_a_disk(tmp_path: Path) -> None:
    async def swap(m: Mounted, one: str, other: str) -> None:
        for old, new in ((one, "aside"), (other, one), ("aside", other)):
            await m.rename((old,), (new,))

    async def test(m: Mounted) -> None:
        await m.write_file(("stored",), b"stored")
        await m.fs.sync()
        for name in ("a", "b", "c"):
            await m.write_file((name,), name.encode())
        await swap(m, "a", "b")
        await swap(m, "stored", "c")
        for number in range(10):
            await m.rename((f"a{number - 1}" if number else "a",), (f"a{number}",))
        await m.rename(("a9",), ("b",))
        assert await m.read_file(("b",)) == b"b"
        await m.fs.sync()

    assert content(on_write_back(tmp_path, test)) == {
        "b": b"b",
        "c": b"stored",
        "stored": b"c",
    }


def test_a_file_removed_while_its_upload_runs_is_not_in_the_bucket(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        begun, may_end = threading.Event(), threading.Event()

        def hold(method: str, _key: str) -> None:
            if method == "put":
                begun.set()
                may_end.wait(60)

        m.store.on_request = hold
        await m.write_file(("file",), b"x")
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(1.1)
        while not begun.is_set():
            await trio.lowlevel.checkpoint()
        await m.unlink(("file",))
        may_end.set()
        assert await m.names() == []
        await m.write_file(("file",), b"again")
        await m.fs.sync()

    assert content(on_write_back(tmp_path, test)) == {"file": b"again"}


def test_files_that_wait_in_a_directory_that_others_removed_are_stored(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(("d",))
        await m.write_file(("d", "stored"), b"x")
        await m.fs.sync()
        await m.write_file(("d", "waits"), b"x")
        for key in ("d/stored", "d/"):
            m.store.delete(key)
        await m.expire()
        await m.names()
        await m.fs.sync()
        assert await m.names(("d",)) == ["waits"]

    assert content(on_write_back(tmp_path, test)) == {"d/waits": b"x"}


def test_what_was_done_while_the_store_was_away_is_in_the_bucket_when_it_is_back(
    tmp_path: Path,
) -> None:
    store = FakeStore(min_part_bytes=TINY_PARTS.min_part)
    store.seed("removed", b"x")

    async def test(m: Mounted) -> None:
        def refuse(_method: str, key: str) -> None:
            raise StoreUnavailableError("away", key=key)

        await m.names()
        store.on_request = refuse
        await m.unlink(("removed",))
        await m.mkdir(("d",))
        await m.symlink(b"to", ("d", "link"))
        for number in range(20):
            await m.write_file(("d", f"{number}"), b"x")
        await m.bench.later(3)
        assert m.fs.unsaved_files == 22
        store.on_request = None
        await m.bench.later(60)
        await m.fs.sync()

    on_write_back(tmp_path, test, store=store)
    assert store.keys() == sorted(["d/", "d/link", *(f"d/{number}" for number in range(20))])


def test_more_files_than_may_wait_are_made_while_the_store_is_away(tmp_path: Path) -> None:
    """Who makes them is slowed down, and loses none."""
    count = int(os.environ.get("OSSFS_PY_SOAK_CREATIONS", str(MAX_PENDING_FILES + 200)))
    written = 0

    def refuse(_method: str, key: str) -> None:
        raise StoreUnavailableError("away", key=key)

    async def test(m: Mounted) -> None:
        nonlocal written

        async def make() -> None:
            nonlocal written
            for number in range(count):
                await m.write_file(("d", f"{number:06}"), b"x")
                written += 1

        await m.mkdir(("d",))
        m.store.on_request = refuse
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
            while m.fs.pending_uploads < MAX_PENDING_FILES:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.sleep(0.2)
            assert written in (MAX_PENDING_FILES, MAX_PENDING_FILES + 1)
            m.store.on_request = None
            await m.bench.later(60)
        await m.fs.sync()

    store = on_mount(
        "temp",
        tmp_path,
        test,
        write_back=True,
        negative_ttl_seconds=3600.0,
        limits=WriteLimits(),
    )
    assert store.keys() == ["d/", *(f"d/{number:06}" for number in range(count))]


def test_the_journal_learns_of_rights_taken_at_once_and_the_rest_at_the_close(
    tmp_path: Path,
) -> None:
    """What was closed goes to the bucket after a kill. A file that was open does not; who recovers
    it by hand gets nobody more rights than its program had given.
    """

    def known() -> dict[str, str]:
        (entry,) = replayed(sorted((tmp_path / "state" / "segments").glob("*.log"))).values()
        record = DirtyRecord.from_json(entry.text)
        assert record.complete is is_closed
        return dict(record.metadata)

    async def test(m: Mounted) -> None:
        nonlocal is_closed
        opened = await m.open(("file",), os.O_CREAT | os.O_WRONLY, 0o644)
        await m.write(opened, 0, b"content")
        first = known()
        change = partial(m.fs.set_attributes, opened.inode, size=None, handle=opened.handle)
        await change(AttributeChange(mtime_ns=1_000_000_000))
        assert known() == first
        await change(AttributeChange(mode=0o600))
        assert int(known()["mode"]) == 0o100600
        await change(AttributeChange(mode=0o640))
        assert int(known()["mode"]) == 0o100600
        await change(AttributeChange(mode=0o604))
        assert int(known()["mode"]) == 0o100604
        await change(AttributeChange(mode=0o644))
        await change(AttributeChange(mtime_ns=2_000_000_000))
        await m.flush(opened)
        is_closed = True
        assert (known()["mtime"], int(known()["mode"])) == ("2", 0o100644)
        await change(AttributeChange(mtime_ns=3_000_000_000))
        assert known()["mtime"] == "3"
        await m.release(opened)

    is_closed = False
    on_mount("temp", tmp_path, test, write_back=True, limits=WriteLimits())
