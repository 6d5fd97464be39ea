"""Trees with write-back: what waits is sent once, and the journal is as far as the programs."""

import os
import random
import shutil
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.errors import AccessDeniedError, FilesystemError, StoreError, UnsavedDataError
from ossfs_py.namespace.metadata import decode
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.recovery import Recovery, tidy_leftovers
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, Names, mounted, on_mount
from tests.support.writing import TINY_PARTS

MODE = "mode"
NAMES = ("a", "b", "c")
KILLS = int(os.environ.get("OSSFS_PY_SOAK_TREE_KILLS", "8"))


def on_write_back(
    root: Path, test: Callable[[Mounted], Awaitable[None]], store: FakeStore | None = None
) -> FakeStore:
    return on_mount("temp", root, test, store=store, write_back=True, negative_ttl_seconds=60.0)


def changes(store: FakeStore) -> list[tuple[str, str]]:
    """The requests that changed something, in order."""
    reads = {"head", "list_page", "get_range_into", "capabilities"}
    return [(method, key) for method, key in store.log if method not in reads]


def test_a_file_is_sent_once_with_the_name_and_attributes_that_it_has_by_then(
    tmp_path: Path,
) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(("lock",), b"content")
        await m.change(("lock",), mode=0o600)
        await m.change(("lock",), mtime_ns=5 * 10**9)
        await m.rename(("lock",), ("file",))
        assert changes(m.store) == []
        await m.fs.sync()
        assert changes(m.store) == [("put", "file")]

    store = on_write_back(tmp_path, test)
    assert store.content("file") == b"content"
    assert store.metadata("file")["mtime"] == "5"
    assert stat.S_IMODE(int(store.metadata("file")[MODE])) == 0o600


def test_what_was_removed_before_it_was_sent_is_never_sent(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        for _ in range(30):
            await m.write_file(("file",), b"content")
            await m.unlink(("file",))
            await m.symlink(b"target", ("file",))
            await m.unlink(("file",))
        await m.fs.sync()
        assert changes(m.store) == []

    on_write_back(tmp_path, test)


def test_a_link_is_there_at_once_and_in_the_store_after_sync(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(("d",))
        await m.symlink(b"target", ("d", "link"))
        await m.rename(("d", "link"), ("d", "moved"))
        assert await m.readlink(("d", "moved")) == b"target"
        assert await m.names(("d",)) == ["moved"]
        assert changes(m.store) == []
        await m.fs.sync()
        assert m.store.keys() == ["d/", "d/moved"]
        assert await m.readlink(("d", "moved")) == b"target"

    on_write_back(tmp_path, test)


def test_a_link_that_the_store_does_not_take_is_told_by_sync(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        m.store.fail("put", AccessDeniedError("no"))
        await m.symlink(b"target", ("link",))
        with pytest.raises(UnsavedDataError, match="a directory or link is not in the bucket"):
            await m.fs.sync()
        await m.fs.sync()
        assert m.store.keys() == ["link"]

    on_write_back(tmp_path, test)


def test_a_directory_that_others_use_stays_and_an_empty_one_goes_without_a_question(
    tmp_path: Path,
) -> None:
    async def test(m: Mounted) -> None:
        for name in ("used", "empty"):
            await m.mkdir((name,))
        await m.fs.sync()
        m.store.take_requests()
        await m.rmdir(("empty",))
        assert m.store.take_requests() == {}
        await m.bench.later(61)
        m.store.seed("used/file", b"another's")
        with pytest.raises(FilesystemError):
            await m.rmdir(("used",))
        await m.fs.sync()
        assert m.store.keys() == ["used/", "used/file"]

    on_write_back(tmp_path, test)


Oracle = dict[Names, tuple[str, bytes, int]]


class RandomProgram:
    """Makes calls that succeed, and keeps what a local disk would have by now."""

    def __init__(self, rng: random.Random, m: Mounted) -> None:
        self.kept: Oracle = {}
        self._rng = rng
        self._mounted = m

    async def step(self) -> None:
        rng, m, kept = self._rng, self._mounted, self.kept
        path = self._path()
        known = kept.get(path)
        kind = known[0] if known else None
        act = rng.choice(["write", "write", "mkdir", "link", "remove", "chmod", "rename", "sync"])
        if act == "write" and kind in {None, "file"}:
            content = rng.randbytes(rng.randrange(20))
            await m.write_file(path, content)
            kept[path] = ("file", content, known[2] if known else 0o644)
        elif act == "mkdir" and not kind:
            await m.mkdir(path)
            kept[path] = ("directory", b"", 0o755)
        elif act == "link" and not kind:
            await m.symlink(b"to", path)
            kept[path] = ("link", b"to", 0o777)
        elif act == "chmod" and known and kind == "file":
            mode = rng.choice([0o600, 0o640, 0o755])
            await m.change(path, mode=mode)
            kept[path] = (known[0], known[1], mode)
        elif act == "remove" and kind:
            if kind == "directory":
                if self._below(path):
                    return
                await m.rmdir(path)
            else:
                await m.unlink(path)
            del kept[path]
        elif act == "rename" and kind:
            await self._rename(path, self._path())
        elif act == "sync" and rng.random() < 0.3:
            await m.bench.later(1.1)

    async def _rename(self, path: Names, there: Names) -> None:
        kept = self.kept
        is_directory = kept[path][0] == "directory"
        target = kept.get(there)
        if there[: len(path)] == path or path[: len(there)] == there:
            return
        if target and (is_directory or target[0] == "directory"):
            return
        await self._mounted.rename(path, there)
        for below in [path, *self._below(path)]:
            kept[there + below[len(path) :]] = kept.pop(below)

    def _path(self) -> Names:
        """A name in the root, or in a directory that is there."""
        parents = [(), *(path for path, what in self.kept.items() if what[0] == "directory")]
        return (*self._rng.choice([each for each in parents if len(each) < 3]), self._name())

    def _name(self) -> str:
        return self._rng.choice(NAMES)

    def _below(self, path: Names) -> list[Names]:
        return [each for each in self.kept if each[: len(path)] == path and each != path]


def in_store(store: FakeStore) -> Oracle:
    found: Oracle = {}
    for key in sorted(store.objects):
        told = decode(store.metadata(key))
        mode = told.mode or 0
        path = tuple(key.rstrip("/").split("/"))
        if key.endswith("/"):
            found[path] = ("directory", b"", stat.S_IMODE(mode))
        elif stat.S_ISLNK(mode):
            found[path] = ("link", told.symlink_target or b"", stat.S_IMODE(mode))
        else:
            found[path] = ("file", store.content(key), stat.S_IMODE(mode))
    return found


async def taken_over(root: Path, store: FakeStore) -> None:
    """What the next mount does about what a killed daemon has left."""
    journal = Journal(root / "state")
    journal.claim_leftovers()
    tidy_leftovers(journal, store)
    journal.close()
    async with mounted("temp", root, store, write_back=True) as m:
        await m.fs.removals_tried()
        recovery = Recovery(m.bench.writes.journal)
        for record in recovery.list():
            assert record.complete, record
            recovery.upload(record.ident, store)
        await m.fs.sync()


def after_a_kill(root: Path, program: Callable[[Mounted], Awaitable[None]]) -> FakeStore:
    """The bucket when a daemon was killed after a program's last call, and the next mount is done.

    The kill: what is on disk at that moment, and nothing more goes to the store.
    """
    store = FakeStore(min_part_bytes=TINY_PARTS.min_part)
    killed, after = root / "killed", root / "after"
    for each in (killed, after):
        each.mkdir()
    is_copied = threading.Event()

    def refuse(_method: str, _key: str) -> None:
        is_copied.wait()
        raise StoreError("the daemon is dead")

    async def test(m: Mounted) -> None:
        await program(m)
        store.on_request = refuse
        while m.bench.writes.context.local.running:
            await trio.lowlevel.checkpoint()
        shutil.copytree(killed / "state", after / "state")
        is_copied.set()

    async def next_mount() -> None:
        await taken_over(after, store)

    on_write_back(killed, test, store=store)
    store.on_request = None
    trio.run(next_mount, clock=trio.testing.MockClock(rate=1.0))
    return store


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_mount_after_a_kill_makes_of_the_bucket_what_a_local_disk_would_be(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    programs: list[RandomProgram] = []

    async def program(m: Mounted) -> None:
        made = RandomProgram(rng, m)
        programs.append(made)
        for _ in range(rng.randrange(1, 120)):
            await made.step()

    store = after_a_kill(tmp_path, program)
    assert in_store(store) == programs[0].kept


def test_the_same_bytes_written_again_have_the_attributes_they_got_last(tmp_path: Path) -> None:
    async def program(m: Mounted) -> None:
        await m.write_file(("file",), b"x")
        await m.fs.sync()
        await m.write_file(("lock",), b"x")
        await m.change(("lock",), mode=0o600)
        await m.rename(("lock",), ("file",))

    assert in_store(after_a_kill(tmp_path, program)) == {("file",): ("file", b"x", 0o600)}


def test_what_takes_the_place_of_a_stored_file_takes_it_after_a_kill_too(tmp_path: Path) -> None:
    async def program(m: Mounted) -> None:
        for name in ("renamed over", "removed"):
            await m.write_file((name,), b"old")
        await m.mkdir(("directory",))
        await m.fs.sync()
        await m.write_file(("lock",), b"new")
        await m.rename(("lock",), ("renamed over",))
        await m.unlink(("removed",))
        await m.write_file(("removed",), b"new")
        await m.rmdir(("directory",))
        await m.symlink(b"target", ("directory",))

    assert in_store(after_a_kill(tmp_path, program)) == {
        ("renamed over",): ("file", b"new", 0o644),
        ("removed",): ("file", b"new", 0o644),
        ("directory",): ("link", b"target", 0o777),
    }
