"""Trees with write-back: what waits is sent once, and the journal is as far as the programs."""

import contextlib
import functools
import math
import os
import random
import shutil
import stat
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ossfs_py.errors import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    FilesystemError,
    StoreError,
    StoreUnavailableError,
    UnsavedDataError,
)
from ossfs_py.filesystem import handles, putoff
from ossfs_py.model import ListPage, ListQuery
from ossfs_py.namespace import emptying
from ossfs_py.namespace.metadata import decode
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.recovery import Recovery, tidy_leftovers
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, Names, mounted, on_mount
from tests.support.tree_order_store import TreeOrderStore
from tests.support.writing import TINY_PARTS

MODE = "mode"
NAMES = ("a", "b", "c")
LIFETIME_SECONDS = 1000.0
"""Of absences, where the clock may jump while the store's threads are slow."""
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


def test_a_small_file_that_was_just_stored_is_read_without_a_request(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(("object",), b"mine")
        await m.fs.sync()
        m.store.take_requests()
        assert await m.read_file(("object",), step=3) == b"mine"
        assert m.store.take_requests() == {}
        m.store.seed("object", b"another's")
        await m.expire()
        assert await m.read_file(("object",)) == b"another's"

    on_write_back(tmp_path, test)


def test_a_small_file_that_was_stored_and_renamed_is_read_without_a_request(
    tmp_path: Path,
) -> None:
    """git stores the index of a pack under a temporary name, renames it, and reads it."""

    async def test(m: Mounted) -> None:
        await m.write_file(("tmp",), b"mine")
        await m.fs.sync()
        await m.rename(("tmp",), ("index",))
        m.store.take_requests()
        assert await m.read_file(("index",)) == b"mine"
        assert m.store.take_requests().get("get_range_into", 0) == 0

    on_write_back(tmp_path, test)


def test_a_rename_does_not_wait_until_the_old_object_is_deleted(tmp_path: Path) -> None:
    """It is hidden meanwhile, and gone before another file gets its name, and after sync."""

    async def test(m: Mounted) -> None:
        for content in (b"first", b"second"):
            await m.write_file(("tmp",), content)
            await m.fs.sync()
            m.store.log.clear()
            await m.rename(("tmp",), ("file",))
            while not changes(m.store):  # noqa: ASYNC110 - it is a thread that makes it
                await trio.sleep(0.001)
            assert [method for method, _ in changes(m.store)] == ["copy"]
            assert m.store.content("tmp") == content
            await m.expire()
            assert await m.names() == ["file"]
            assert not await m.exists(("tmp",))
        m.store.seed("tmp", b"another client's")
        await m.fs.sync()
        await m.expire()
        assert await m.read_file(("tmp",)) == b"another client's"
        await m.rename(("file",), ("a",))
        await m.rename(("a",), ("file",))
        await m.fs.sync()
        assert m.store.keys() == ["file", "tmp"]

    store = on_write_back(tmp_path, test)
    assert store.content("file") == b"second"


def test_a_renamed_file_whose_removal_the_journal_cannot_take_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(("old",), b"mine")
        await m.fs.sync()
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "record_removal", full_disk)
            await m.rename(("old",), ("new",))
            with pytest.raises(UnsavedDataError, match="a renamed file has the old name"):
                await m.fs.sync()
            assert await m.names() == ["new"]
        await m.expire()
        await m.fs.sync()
        assert m.store.keys() == ["new"]

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    on_write_back(tmp_path, test)


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


def test_a_tree_without_markers_is_removed_without_making_any(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.names(("t",))
        for folder in ("a", "b"):
            for name in await m.names(("t", folder)):
                await m.unlink(("t", folder, name))
            await m.rmdir(("t", folder))
        await m.rmdir(("t",))
        await m.fs.sync()
        assert not [key for method, key in m.store.log if method == "put"]
        assert m.store.keys() == []

    store = FakeStore()
    for key in ("t/a/1", "t/a/2", "t/b/1"):
        store.seed(key, b"x")
    on_write_back(tmp_path, test, store)


def test_other_clients_see_an_emptied_directory_all_the_time(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.names(("d",))
        await m.unlink(("d", "file"))
        assert await m.names(()) == ["d"]
        await m.fs.sync()
        assert changes(m.store) == [("put", "d/"), ("delete", "d/file")]
        assert await m.names(("d",)) == []

    store = FakeStore()
    store.seed("d/file", b"x")
    on_write_back(tmp_path, test, store)


def test_an_emptied_directory_survives_a_kill(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.names(("d",))
        await m.unlink(("d", "file"))
        markers = m.bench.writes.journal.leftover_markers()
        assert [record.key for record in markers] == ["d/"]

    store = FakeStore()
    store.seed("d/file", b"x")
    on_write_back(tmp_path, test, store)


Oracle = dict[Names, tuple[str, bytes, int]]


class RandomProgram:
    """Makes calls until the daemon is killed, and keeps what a local disk would have by then."""

    def __init__(self, rng: random.Random, m: Mounted, killer: "Killer") -> None:
        self.kept: Oracle = {}
        """What the calls that returned have made."""
        self.in_doubt: list[Oracle] = []
        """What else may be there: a call was under way."""
        self._rng = rng
        self._mounted = m
        self._killer = killer

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            call, outcomes = self._step()
            if call is None:
                continue
            try:
                await call()
            except (FilesystemError, StoreError, OSError):
                assert self._killer.is_dead
            if self._killer.is_dead:
                self.in_doubt = outcomes
                return
            self.kept = outcomes[0]

    def _step(self) -> tuple[Callable[[], Awaitable[None]] | None, list[Oracle]]:
        """A call, and what there may be after it, the first if it returns."""
        rng, m, kept = self._rng, self._mounted, self.kept
        path = self._path()
        known = kept.get(path)
        kind = known[0] if known else None
        without = {each: what for each, what in kept.items() if each != path}
        act = rng.choice(
            ["write", "write", "mkdir", "link", "remove", "chmod", "rename", "move", "wait"]
        )
        if act == "write" and kind in {None, "file"}:
            content = rng.randbytes(rng.randrange(20))
            made = ("file", content, known[2] if known else 0o644)
            # Opened anew, what it had waits no more, and what is stored of it stays.
            stored = self._rewritten(path) if known else []
            return partial(m.write_file, path, content), [{**kept, path: made}, without, *stored]
        if act == "mkdir" and not kind:
            return partial(m.mkdir, path), [{**kept, path: ("directory", b"", 0o755)}]
        if act == "link" and not kind:
            return partial(m.symlink, b"to", path), [{**kept, path: ("link", b"to", 0o777)}]
        if act == "chmod" and known and kind == "file":
            mode = rng.choice([0o600, 0o640, 0o755])
            changed = {**kept, path: (known[0], known[1], mode)}
            return partial(m.change, path, mode=mode), [changed]
        if act == "remove" and kind == "directory" and not self._below(path):
            return partial(m.rmdir, path), [without]
        if act == "remove" and kind in {"file", "link"}:
            return partial(m.unlink, path), [without]
        if act == "rename" and kind:
            return self._rename(path, self._path())
        if act == "move" and (trees := [each for each in kept if self._below(each)]):
            return self._rename(rng.choice(trees), self._path())
        if act == "wait" and rng.random() < 0.3:
            return partial(m.bench.later, 1.1), [kept]
        return None, []

    def _rewritten(self, path: Names) -> list[Oracle]:
        key = "/".join(path)
        if key not in self._mounted.store.objects:
            return []
        return [{**self.kept, path: in_store(self._mounted.store)[path]}]

    def _rename(
        self, path: Names, there: Names
    ) -> tuple[Callable[[], Awaitable[None]] | None, list[Oracle]]:
        kept = dict(self.kept)
        is_directory = kept[path][0] == "directory"
        target = kept.get(there)
        if there[: len(path)] == path or path[: len(there)] == there:
            return None, []
        fits = not target or is_directory == (target[0] == "directory")
        if not fits or self._below(there):
            return None, []
        for below in [path, *self._below(path)]:
            kept[there + below[len(path) :]] = kept.pop(below)
        both = [] if is_directory else [{**self.kept, there: self.kept[path]}]
        return partial(self._mounted.rename, path, there), [kept, *both]

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
            if record.complete:
                recovery.upload(record.ident, store)
            else:
                recovery.discard(record.ident, store)
        await m.fs.sync()


JOURNAL_STEPS = (
    "write_record",
    "remove_record",
    "remove_staging",
    "set_aside",
    "record_rename",
    "forget_rename",
    "record_file_rename",
    "forget_file_rename",
    "record_removal",
    "forget_removal",
    "record_marker",
    "forget_marker",
    "keep_small",
    "write_small",
    "cut_small",
    "describe_small",
    "forget_small",
)


def copy_if_there(source: str, target: str) -> None:
    """What no record tells of yet, or any more, may go while it is copied."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


class Killer:
    """Keeps what is on disk before the step of that number (a request, or a change of the journal):
    that is what a daemon killed then leaves. Nothing goes to the store afterwards.
    """

    def __init__(self, state: Path, kept: Path, store: FakeStore) -> None:
        self.is_dead = False
        self.left = math.inf
        """Steps until then."""
        self._state = state
        self._kept = kept
        self._lock = threading.RLock()
        store.on_request = self._on_request

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        for name in JOURNAL_STEPS:
            patch.setattr(Journal, name, self._stepping(getattr(Journal, name)))

    def kill(self) -> None:
        with self._lock:
            if not self.is_dead:
                unfinished = shutil.ignore_patterns("*.tmp")
                shutil.copytree(
                    self._state, self._kept, ignore=unfinished, copy_function=copy_if_there
                )
                self.is_dead = True

    def _on_request(self, _method: str, _key: str) -> None:
        self._step()
        if self.is_dead:
            raise StoreError("the daemon is dead")

    def _stepping(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def stepping(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self._step()
                return method(*arguments, **options)

        return stepping

    def _step(self) -> None:
        with self._lock:
            self.left -= 1
            if self.left == 0:
                self.kill()


def after_a_kill(root: Path, program: Callable[[Mounted, Killer], Awaitable[None]]) -> FakeStore:
    """The bucket when a daemon was killed, at the step that the program chose or else after its
    last call, and the next mount is done.
    """
    store = FakeStore(min_part_bytes=TINY_PARTS.min_part)
    killed, after = root / "killed", root / "after"
    for each in (killed, after):
        each.mkdir()
    killer = Killer(killed / "state", after / "state", store)

    async def test(m: Mounted) -> None:
        await program(m, killer)
        while m.bench.writes.context.local.running and not killer.is_dead:
            await trio.lowlevel.checkpoint()
        killer.kill()

    async def next_mount() -> None:
        await taken_over(after, store)

    with pytest.MonkeyPatch.context() as patch:
        killer.watch(patch)
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

    async def program(m: Mounted, killer: Killer) -> None:
        programs.append(RandomProgram(rng, m, killer))
        if rng.random() < 0.8:
            killer.left = rng.randrange(1, 200)
        await programs[0].run(rng.randrange(1, 200))

    store = after_a_kill(tmp_path, program)
    assert in_store(store) in [programs[0].kept, *programs[0].in_doubt]


def test_a_file_that_was_renamed_has_one_name_after_a_kill(tmp_path: Path) -> None:
    async def program(m: Mounted, killer: Killer) -> None:
        await m.write_file(("old",), b"mine")
        await m.fs.sync()
        await m.rename(("old",), ("new",))
        killer.kill()

    store = after_a_kill(tmp_path, program)
    assert store.keys() == ["new"]
    assert store.content("new") == b"mine"


def test_the_same_bytes_written_again_have_the_attributes_they_got_last(tmp_path: Path) -> None:
    async def program(m: Mounted, _killer: Killer) -> None:
        await m.write_file(("file",), b"x")
        await m.fs.sync()
        await m.write_file(("lock",), b"x")
        await m.change(("lock",), mode=0o600)
        await m.rename(("lock",), ("file",))

    assert in_store(after_a_kill(tmp_path, program)) == {("file",): ("file", b"x", 0o600)}


def test_what_takes_the_place_of_a_stored_file_takes_it_after_a_kill_too(tmp_path: Path) -> None:
    async def program(m: Mounted, _killer: Killer) -> None:
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


def tree(**files: bytes) -> Oracle:
    """Files, and the directories they are in; ``b"->"`` makes a link; "_" stands for "/"."""
    made: Oracle = {}
    for name, content in files.items():
        path = tuple(name.split("_"))
        if not path[-1]:
            path = path[:-1]
        else:
            made[path] = ("link", b"to", 0o777) if content == b"->" else ("file", content, 0o644)
        for end in range(1, len(path) + (path not in made)):
            made[path[:end]] = ("directory", b"", 0o755)
    return made


async def make(m: Mounted, wanted: Oracle) -> None:
    for path in sorted(wanted, key=len):
        kind, content, _mode = wanted[path]
        if kind == "directory":
            if not await m.exists(path):
                await m.mkdir(path)
        elif kind == "link":
            await m.symlink(content, path)
        else:
            await m.write_file(path, content)


LOCK, NAME = ("lock",), ("name",)
MOVES: dict[str, tuple[Oracle, Oracle, tuple[Names, Names], Oracle]] = {
    "over a file that waits": (tree(), tree(lock=b"new", name=b"old"), (LOCK, NAME), {}),
    "a link over a file that waits": (tree(), tree(lock=b"->", name=b"old"), (LOCK, NAME), {}),
    "over a link that waits": (tree(), tree(lock=b"new", name=b"->"), (LOCK, NAME), {}),
    "a stored file over one that waits": (
        tree(lock=b"new"),
        tree(name=b"old"),
        (LOCK, NAME),
        tree(lock=b"new"),
    ),
    "a stored file over a link that waits": (
        tree(lock=b"new"),
        tree(name=b"->"),
        (LOCK, NAME),
        tree(lock=b"new"),
    ),
    "a directory with what waits in it": (
        tree(lock_stored=b"old", lock_more_stored=b"more"),
        tree(lock_stored=b"new", lock_waits=b"x", lock_link=b"->", lock_made_=b""),
        (LOCK, NAME),
        {},
    ),
    "a directory over one": (tree(name_=b""), tree(lock_file=b"x"), (LOCK, NAME), {}),
}
"""What is stored, what waits beside it, or over it; what gets which name; what may be left of it: a
stored file is copied, then deleted."""


@pytest.mark.parametrize("move", MOVES)
def test_a_rename_cut_short_at_any_step_leaves_one_of_both_names(tmp_path: Path, move: str) -> None:
    stored, waits, (old, new), may_stay = MOVES[move]
    before = {**stored, **waits}
    moved = {new + path[len(old) :]: before[path] for path in before if path[: len(old)] == old}
    after = {path: what for path, what in before.items() if path[:1] not in {old, new}} | moved
    is_over = is_told = False

    async def program(m: Mounted, killer: Killer) -> None:
        nonlocal is_over, is_told
        await make(m, stored)
        await m.fs.sync()
        for path in waits:
            if path in stored and waits[path][0] == "file":
                await m.write_file((*path[:-1], "new"), waits[path][1])
                await m.rename((*path[:-1], "new"), path)
        await make(m, {path: what for path, what in waits.items() if path not in stored})
        killer.left = step
        try:
            await m.rename(old, new)
            is_told = not killer.is_dead
            if old in stored and stored[old][0] == "directory":
                await m.fs.sync()  # it goes on
        except (FilesystemError, StoreError, UnsavedDataError):
            assert killer.is_dead
        is_over = not killer.is_dead

    step = 0
    while not is_over:
        step += 1
        is_told = False
        root = tmp_path / f"{step}"
        root.mkdir()
        found = in_store(after_a_kill(root, program))
        assert found in ([after] if is_told else [before, after, after | may_stay]), step
    assert step > 2, "nothing was killed"


def test_directories_go_to_the_store_before_what_is_in_them(tmp_path: Path) -> None:
    store = FakeStore(min_part_bytes=TINY_PARTS.min_part)
    early: list[str] = []

    def watch(method: str, key: str) -> None:
        above = key.rstrip("/").rpartition("/")[0]
        if method in {"put", "copy"} and above and f"{above}/" not in store.objects:
            early.append(key)

    async def test(m: Mounted) -> None:
        await make(m, tree(a_b_c_file=b"x"))
        await m.fs.sync()
        await m.rename(("a",), ("moved",))

    store.on_request = watch
    on_write_back(tmp_path, test, store=store)
    assert early == []


def test_the_directories_above_a_long_file_are_stored_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git writes a pack for a while, and then waits for it."""
    monkeypatch.setattr(handles, "_LONG_BYTES", 20)

    def markers(store: FakeStore) -> list[str]:
        return [key for method, key in changes(store) if method == "put"]

    async def test(m: Mounted) -> None:
        await m.mkdir(("a",))
        await m.mkdir(("a", "b"))
        await m.mkdir(("other",))
        opened = await m.open(("a", "b", "pack"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        await m.write(opened, 0, bytes(16))
        await trio.testing.wait_all_tasks_blocked()
        assert markers(m.store) == []
        await m.write(opened, 16, bytes(16))
        while len(markers(m.store)) < 2:  # noqa: ASYNC110 - it is a thread that makes them
            await trio.sleep(0.001)
        assert markers(m.store) == ["a/", "a/b/"]
        await m.close(opened)

    on_write_back(tmp_path, test)


def test_who_lists_a_tree_of_which_something_was_stored_lately_waits_once(tmp_path: Path) -> None:
    """git asks for absent names while it makes a tree, syncs a pack, and lists all in the end."""
    folders = [f"d{number}" for number in range(6)]

    async def test(m: Mounted) -> None:
        await m.mkdir(("t",))
        for folder in folders:
            await m.mkdir(("t", folder))
            await m.write_file(("t", folder, "f"), b"x")
        assert await m.names(("t", "d5")) == ["f"]  # the store is asked, and has nothing yet
        opened = await m.open(("t", "d0", "f"), os.O_WRONLY)
        await m.fsync(opened)
        await m.close(opened)
        m.store.take_requests()
        assert sorted(await m.names(("t",))) == folders
        for folder in folders:
            assert await m.names(("t", folder)) == ["f"]
        assert m.store.take_requests() == {"list_page": 1}

    on_write_back(tmp_path, test)


def removed_tree(folders: int, files: int, store: FakeStore | None = None) -> FakeStore:
    store = store or FakeStore()
    for folder in range(folders):
        for file in range(files):
            store.seed(f"t/d{folder:02}/f{file}", b"x")
    return store


def on_removed_tree(
    folders: int,
    page_size: int,
    test: Callable[[Mounted], Awaitable[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five files a directory; what was listed is known for longer than what is absent."""
    monkeypatch.setattr("tests.support.filesystems.METADATA_TTL_SECONDS", 3 * LIFETIME_SECONDS)
    store = removed_tree(folders, 5, FakeStore(page_size=page_size))
    on_mount(
        "temp", tmp_path, test, store=store, write_back=True, negative_ttl_seconds=LIFETIME_SECONDS
    )


async def remove_files(m: Mounted, folder: str) -> None:
    for name in await m.names(("t", folder)):
        await m.unlink(("t", folder, name))


async def emptied(m: Mounted, ttl_seconds: float = 1.0) -> list[str]:
    """Remove the files of every directory of the tree; its directories, whose listings are old."""
    folders = await m.names(("t",))
    for folder in folders:
        await remove_files(m, folder)
    await m.bench.later(ttl_seconds + 1)
    return folders


def asked(requests: dict[str, int]) -> int:
    """LISTs, without the one that each batch of removals sends for itself when it begins."""
    return requests.get("list_page", 0) - requests.get("delete_many", 0)


SLOW_SECONDS = 30.0
"""A lifetime that does not end while a busy machine removes a tree."""


def test_a_tree_that_is_removed_is_asked_for_once_a_lifetime(tmp_path: Path) -> None:
    """What was listed is too old at each rmdir, and one answer tells of several directories."""

    async def test(m: Mounted) -> None:
        folders = await emptied(m, SLOW_SECONDS)
        m.store.take_requests()
        for folder in folders:
            await m.rmdir(("t", folder))
        await m.rmdir(("t",))
        assert asked(m.store.take_requests()) <= 4
        await m.fs.sync()
        assert m.store.keys() == []

    tree = removed_tree(20, 5)
    on_mount("temp", tmp_path, test, store=tree, write_back=True, negative_ttl_seconds=SLOW_SECONDS)


async def answered(store: FakeStore) -> None:
    """Wait until nothing has been asked for a while: what was asked is answered then."""
    asked_before = -1
    while len(store.log) != asked_before:
        asked_before = len(store.log)
        await trio.sleep(0.1)


@pytest.mark.parametrize("others", ["", "t/d03/other", "t/d14/other", "t/z"])
def test_nobody_waits_for_the_store_at_the_end_of_a_tree(others: str, tmp_path: Path) -> None:
    """The answer about all that is left is asked for before. It tells of other clients' files."""

    async def test(m: Mounted) -> None:
        folders = await emptied(m, SLOW_SECONDS)
        # What the store has deleted makes an answer from before useless: it deletes nothing yet.
        with m.store.holding("delete_many"):
            for folder in folders:
                if folder == "d05" and others:
                    m.store.seed(others, b"another's")
                await m.rmdir(("t", folder))  # the answer about d14 was asked for before
            if others:
                with pytest.raises(DirectoryNotEmptyError):
                    await m.rmdir(("t",))
            else:
                await answered(m.store)
                with m.store.holding("list_page"), trio.fail_after(SLOW_SECONDS):
                    await m.rmdir(("t",))
        await m.fs.sync()
        left = [key for key in m.store.objects if not key.endswith("/")]
        assert left == ([others] if others else [])

    tree = removed_tree(20, 5)
    on_mount("temp", tmp_path, test, store=tree, write_back=True, negative_ttl_seconds=SLOW_SECONDS)


def test_a_rest_that_is_more_than_a_page_is_asked_for_again(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        for folder in await emptied(m, SLOW_SECONDS):
            await m.rmdir(("t", folder))
        await m.rmdir(("t",))
        await m.fs.sync()

    tree = removed_tree(20, 5, FakeStore(page_size=40))
    on_mount("temp", tmp_path, test, store=tree, write_back=True, negative_ttl_seconds=SLOW_SECONDS)
    assert tree.objects == {}


def test_a_directory_beside_one_whose_name_goes_on_is_asked_for_with_those_behind_it(
    tmp_path: Path,
) -> None:
    """The keys below ``d01-old/`` come between ``d01`` and ``d01/``."""

    async def test(m: Mounted) -> None:
        folders = await emptied(m, SLOW_SECONDS)
        m.store.take_requests()
        for folder in folders:
            if folder != "d01-old":
                await m.rmdir(("t", folder))
        assert asked(m.store.take_requests()) <= 4  # one for what is left in t
        await m.write_file(("t", "d01-old", "new"), b"1")
        await m.fs.sync()
        left = m.store.keys()
        assert [key for key in left if not key.endswith("/")] == ["t/d01-old/new"]

    store = removed_tree(20, 5)
    for number in range(10):
        store.seed(f"t/d01-old/f{number}", b"x")
    on_mount(
        "temp", tmp_path, test, store=store, write_back=True, negative_ttl_seconds=SLOW_SECONDS
    )


def test_what_others_store_while_a_tree_is_removed_keeps_its_directory(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        folders = await emptied(m)
        await m.rmdir(("t", folders[0]))
        m.store.seed("t/d02/theirs", b"1")
        await m.rmdir(("t", folders[1]))  # here the answer for all comes
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", "d02"))
        await m.rmdir(("t", "d03"))
        m.store.seed("t/d05/later", b"1")
        await m.bench.later(2)
        await m.rmdir(("t", "d04"))
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", "d05"))
        await m.fs.sync()
        left = m.store.keys()
        assert [key for key in left if not key.endswith("/")] == ["t/d02/theirs", "t/d05/later"]

    on_mount(
        "temp", tmp_path, test, store=removed_tree(6, 2), write_back=True, negative_ttl_seconds=1.0
    )


@pytest.mark.parametrize("page_size", [3, 7, 1000])
@pytest.mark.parametrize("late", ["d", "d-x", "d.y", "d0", "e"])
def test_what_others_store_keeps_its_directory_in_whatever_order_the_store_has_keys(
    tmp_path: Path, late: str, page_size: int
) -> None:
    async def test(m: Mounted) -> None:
        await emptied(m)
        m.store.seed(f"t/{late}/theirs", b"1")
        for folder in ("d-x", "d0", "d", "c", "d.y", "e"):
            if folder == late:
                with pytest.raises(FilesystemError):
                    await m.rmdir(("t", folder))
            else:
                await m.rmdir(("t", folder))
        await m.fs.sync()
        assert [key for key in sorted(m.store.objects) if not key.endswith("/")] == [
            f"t/{late}/theirs"
        ]

    store = TreeOrderStore(page_size=page_size)
    for folder in ("c", "d", "d-x", "d.y", "d0", "e"):
        for number in range(2):
            store.seed(f"t/{folder}/f{number}", b"x")
    on_mount("temp", tmp_path, test, store=store, write_back=True, negative_ttl_seconds=1.0)


def test_what_this_mount_makes_while_a_tree_is_removed_keeps_its_directory(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        folders = await emptied(m)
        for folder in folders[:2]:
            await m.rmdir(("t", folder))
        await m.write_file(("t", "d02", "new"), b"1")
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", "d02"))
        await m.fs.sync()
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", "d02"))
        await m.fs.sync()
        left = m.store.keys()
        assert "t/d02/new" in left

    on_mount(
        "temp", tmp_path, test, store=removed_tree(4, 2), write_back=True, negative_ttl_seconds=60.0
    )


def test_a_directory_that_one_answer_does_not_hold_is_asked_for_alone(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.names(("t",))
        for folder in ("d00", "d01"):
            await remove_files(m, folder)
        await m.bench.later(2)
        await m.rmdir(("t", "d00"))
        for number in range(1100):
            m.store.seed(f"t/d01/{number:04}", b"1")
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", "d01"))
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", "d02"))

    on_mount(
        "temp", tmp_path, test, store=removed_tree(3, 2), write_back=True, negative_ttl_seconds=1.0
    )


def test_a_store_that_mixes_the_order_up_is_asked_for_each_directory(tmp_path: Path) -> None:
    class MixedUp(FakeStore):
        def list_page(self, query: ListQuery) -> ListPage:
            page = super().list_page(query)
            if query.delimiter or not query.start_after:
                return page
            return replace(page, objects=page.objects[::-1])

    async def test(m: Mounted) -> None:
        folders = await emptied(m)
        m.store.take_requests()
        for folder in folders:
            await m.rmdir(("t", folder))
        assert m.store.take_requests()["list_page"] <= len(folders) + 2
        await m.fs.sync()

    store = removed_tree(6, 2, MixedUp())
    on_mount("temp", tmp_path, test, store=store, write_back=True, negative_ttl_seconds=1.0)
    assert store.keys() == ["t/"]


def test_an_answer_still_counts_when_the_removals_in_it_are_over(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        folders = await m.names(("t",))
        files = {folder: await m.names(("t", folder)) for folder in folders}
        await m.bench.later(31)
        for folder, names in files.items():
            for name in names:
                await m.unlink(("t", folder, name))
        for folder in folders[:2]:
            await m.rmdir(("t", folder))
        await m.fs.sync()
        m.store.take_requests()
        for folder in folders[2:]:
            await m.rmdir(("t", folder))
        assert "list_page" not in m.store.take_requests()
        await m.fs.sync()
        assert m.store.keys() == ["t/"]

    on_mount(
        "temp", tmp_path, test, store=removed_tree(6, 2), write_back=True, negative_ttl_seconds=30.0
    )


async def listed(m: Mounted) -> list[str]:
    """The directories of the tree, when what their listings say of absent names has grown old."""
    folders = await m.names(("t",))
    for folder in folders:
        await m.names(("t", folder))
    await m.bench.later(LIFETIME_SECONDS + 1)
    return folders


def test_the_next_answer_about_a_tree_that_is_removed_is_requested_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("_CALM_SECONDS", "_LONGEST_CALM_SECONDS"):
        # However slow the machine is, the removals do not ask for what they delete meanwhile.
        monkeypatch.setattr(putoff, pause, 100 * LIFETIME_SECONDS)

    async def test(m: Mounted) -> None:
        folders = await listed(m)
        for folder in folders:
            await remove_files(m, folder)
        m.store.take_requests()
        for folder in folders[:25]:
            await m.rmdir(("t", folder))
        assert 3 <= m.store.take_requests().get("list_page", 0) <= 6
        m.store.seed("t/d29/theirs", b"1")
        await m.bench.later(LIFETIME_SECONDS + 1)
        for folder in folders[25:29]:
            await m.rmdir(("t", folder))
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", "d29"))
        await m.fs.sync()
        left = m.store.keys()
        assert [key for key in left if not key.endswith("/")] == ["t/d29/theirs"]

    on_removed_tree(30, 50, test, tmp_path, monkeypatch)


def test_the_latest_answer_about_a_tree_that_is_removed_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(m: Mounted) -> None:
        folders = await listed(m)
        for folder in folders:
            await remove_files(m, folder)
        for folder in folders[:5]:
            await m.rmdir(("t", folder))
        m.store.seed(f"t/{folders[10]}/theirs", b"1")
        await m.bench.later(0.8 * LIFETIME_SECONDS)
        await m.rmdir(("t", folders[5]))  # the answer is soon too old: the next one is requested
        await m.bench.idle()
        for folder in folders[6:10]:
            await m.rmdir(("t", folder))
        with pytest.raises(FilesystemError):
            await m.rmdir(("t", folders[10]))
        await m.fs.sync()
        left = m.store.keys()
        assert f"t/{folders[10]}/theirs" in left

    on_removed_tree(30, 100, test, tmp_path, monkeypatch)


def test_the_top_of_a_tree_that_is_removed_is_asked_for_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of removed files may be below it when it is removed."""

    async def test(m: Mounted) -> None:
        folders = await listed(m)
        with m.store.holding("delete_many"):
            for folder in folders:
                await remove_files(m, folder)
                await m.rmdir(("t", folder))
            m.store.seed("t/d15/theirs", b"1")
            with pytest.raises(FilesystemError):
                await m.rmdir(("t",))
            m.store.erase("t/d15/theirs")
            m.store.take_requests()
            await m.rmdir(("t",))
            assert m.store.take_requests()["list_page"] <= 4
        await m.fs.sync()
        assert m.store.keys() == []

    monkeypatch.setattr(emptying, "_PART_KEYS", 45)
    monkeypatch.setattr(emptying, "_LAST_STRETCH", 0.0)
    on_removed_tree(20, 50, test, tmp_path, monkeypatch)


@pytest.mark.parametrize("stored", ["nothing", "theirs", "ours", "late"])
def test_what_is_below_the_top_of_a_tree_is_asked_for_while_its_last_directories_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    """In parts, which tell of what others stored in directories that were removed before."""

    async def test(m: Mounted) -> None:
        folders = await listed(m)
        for folder in folders:
            await remove_files(m, folder)
            await m.rmdir(("t", folder))
            if folder == "d00" and stored == "theirs":
                m.store.seed("t/d00/theirs", b"1")
            await m.bench.idle()
        if stored == "late":
            m.store.seed("t/d00/theirs", b"1")
            await m.bench.later(LIFETIME_SECONDS + 1)
        elif stored == "ours":
            await m.mkdir(("t", "d00"))
            await m.write_file(("t", "d00", "ours"), b"1")
            with pytest.raises(FilesystemError):
                await m.rmdir(("t",))
            await m.unlink(("t", "d00", "ours"))
            await m.rmdir(("t", "d00"))
        m.store.take_requests()
        if stored in ("nothing", "ours"):
            await m.rmdir(("t",))
            asked = m.store.take_requests().get("list_page", 0)
            assert asked <= (2 if stored == "nothing" else 4)
        else:
            with pytest.raises(FilesystemError):
                await m.rmdir(("t",))
        await m.fs.sync()
        left = m.store.keys()
        theirs = ["t/d00/theirs"] if stored in ("theirs", "late") else []
        assert [key for key in left if not key.endswith("/")] == theirs

    monkeypatch.setattr(emptying, "_PART_KEYS", 25)
    on_removed_tree(20, 40, test, tmp_path, monkeypatch)


def test_a_part_that_the_store_does_not_tell_is_no_reason_to_remove_a_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(m: Mounted) -> None:
        folders = await listed(m)
        await remove_files(m, folders[0])
        await m.rmdir(("t", folders[0]))
        m.store.seed("t/d00/theirs", b"1")
        for folder in folders[1:]:
            await remove_files(m, folder)
        m.store.fail("list_page", StoreUnavailableError("down"))
        for folder in folders[1:]:
            await m.rmdir(("t", folder))
        with pytest.raises(FilesystemError):
            await m.rmdir(("t",))

    monkeypatch.setattr(emptying, "_PART_KEYS", 25)
    on_removed_tree(20, 40, test, tmp_path, monkeypatch)
