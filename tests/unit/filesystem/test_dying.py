"""A daemon that dies at each step of a call that changes something: the next one goes on from what
was written down by then, is asked again, and leaves what one daemon alone would have left."""

import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ossfs_py.model import AttributeChange
from ossfs_py.namespace.inode import ROOT_NUMBER
from ossfs_py.writing.journal import Journal
from tests.support.dying import (
    ADDED,
    BEFORE,
    GID,
    UID,
    Case,
    Moment,
    WatchedStore,
    dies,
    life,
    names,
    opened,
    run,
    told_handles,
    whole,
    written,
)


@pytest.mark.parametrize("flags", [0, os.O_EXCL], ids=["", "exclusive"])
@pytest.mark.parametrize("content", [b"", b"small", BEFORE], ids=["empty", "small", "parts"])
def test_a_new_file_is_stored_once(flags: int, content: bytes, tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        flag = os.O_WRONLY | os.O_CREAT | flags
        reply, _ = await case.fs.create(ROOT_NUMBER, b"new", 0o640, flag, UID, GID)
        case.numbers["new"] = reply.handle
        if content:
            await written(case, reply.handle, 0, content)

    async def call(case: Case) -> None:
        await case.fs.flush(case.numbers["new"])

    async def check(case: Case) -> None:
        assert case.store.content("new") == content
        entry = await case.fs.lookup(ROOT_NUMBER, b"new")
        assert stat.S_IMODE(entry.attributes.mode) == 0o640
        assert (entry.attributes.size, entry.attributes.uid) == (len(content), UID)
        await written(case, case.numbers["new"], len(content), b"more")
        await case.fs.flush(case.numbers["new"])
        await case.fs.release(case.numbers["new"])
        assert case.store.content("new") == content + b"more"

    assert dies(tmp_path, prepare, call, check, {}) > 3


def test_attributes_that_changed_while_parts_had_left_are_stored(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        flags = os.O_WRONLY | os.O_CREAT
        reply, entry = await case.fs.create(ROOT_NUMBER, b"new", 0o640, flags, UID, GID)
        case.numbers["new"] = reply.handle
        await written(case, reply.handle, 0, BEFORE)
        await case.fs.set_attributes(entry.inode, AttributeChange(mode=0o600), None, None)

    async def call(case: Case) -> None:
        await case.fs.flush(case.numbers["new"])

    async def check(case: Case) -> None:
        assert case.store.content("new") == BEFORE
        assert case.store.metadata("new")["mode"] == str(stat.S_IFREG | 0o600)

    assert dies(tmp_path, prepare, call, check, {}) > 3


@pytest.mark.parametrize("stored", [False, True], ids=["written", "stored"])
def test_what_is_appended_is_there_once(stored: bool, tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        await opened(case, "log", os.O_WRONLY | os.O_APPEND)
        if stored:
            await written(case, case.numbers["log"], len(BEFORE), ADDED)

    async def call(case: Case) -> None:
        if not stored:
            await written(case, case.numbers["log"], len(BEFORE), ADDED)
        await case.fs.fsync(case.numbers["log"])

    async def check(case: Case) -> None:
        assert case.store.content("log") == BEFORE + ADDED
        await written(case, case.numbers["log"], len(BEFORE + ADDED), b"next")
        await case.fs.flush(case.numbers["log"])
        assert case.store.content("log") == BEFORE + ADDED + b"next"

    assert dies(tmp_path, prepare, call, check, {"log": BEFORE}) > 3


def test_what_is_appended_to_others_lines_is_there_once(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        await opened(case, "log", os.O_WRONLY | os.O_APPEND)
        await written(case, case.numbers["log"], len(BEFORE), ADDED)
        case.store.seed("log", BEFORE + b"theirs\n")

    async def call(case: Case) -> None:
        await case.fs.fsync(case.numbers["log"])

    async def check(case: Case) -> None:
        assert case.store.content("log") == BEFORE + b"theirs\n" + ADDED
        await written(case, case.numbers["log"], len(BEFORE + ADDED), b"next")
        await case.fs.flush(case.numbers["log"])
        assert case.store.content("log") == BEFORE + b"theirs\n" + ADDED + b"next"

    assert dies(tmp_path, prepare, call, check, {"log": BEFORE}) > 3


@pytest.mark.parametrize("late", [False, True], ids=["", "late"])
def test_a_change_in_the_middle_is_stored(late: bool, tmp_path: Path) -> None:
    """``late``: what the dead daemon had sent arrives when the next one has looked for it."""
    changed = BEFORE[:40] + b"middle" + BEFORE[46:]

    async def prepare(case: Case) -> None:
        await opened(case, "file", os.O_RDWR)
        assert await whole(case, "file") == BEFORE
        await written(case, case.numbers["file"], 40, b"middle")

    async def call(case: Case) -> None:
        if late and case.since_ns is not None and case.store.content("file") == BEFORE:
            case.store.seed("file", changed)
        await case.fs.fsync(case.numbers["file"])

    async def check(case: Case) -> None:
        assert case.store.content("file") == changed == await whole(case, "file")
        await case.fs.set_attributes(
            (await case.fs.lookup(ROOT_NUMBER, b"file")).inode,
            AttributeChange(),
            50,
            case.numbers["file"],
        )
        await case.fs.flush(case.numbers["file"])
        assert case.store.content("file") == changed[:50] == await whole(case, "file")

    assert dies(tmp_path, prepare, call, check, {"file": BEFORE}) > 3


def test_a_file_is_cut_by_its_path(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        case.numbers["inode"] = (await case.fs.lookup(ROOT_NUMBER, b"file")).inode

    async def call(case: Case) -> None:
        await case.fs.set_attributes(case.numbers["inode"], AttributeChange(), 30, None)

    async def check(case: Case) -> None:
        assert case.store.content("file") == BEFORE[:30]

    assert dies(tmp_path, prepare, call, check, {"file": BEFORE}) > 3


@pytest.mark.parametrize("kind", ["directory", "link", "fifo", "file"])
def test_what_is_made_is_made_once(kind: str, tmp_path: Path) -> None:
    async def prepare(_case: Case) -> None:
        pass

    async def call(case: Case) -> None:
        fs = case.fs
        make = {
            "directory": partial(fs.make_directory, ROOT_NUMBER, b"n", 0o750, UID, GID),
            "link": partial(fs.make_symlink, ROOT_NUMBER, b"n", b"target", UID, GID),
            "fifo": partial(fs.make_node, ROOT_NUMBER, b"n", stat.S_IFIFO | 0o600, UID, GID),
            "file": partial(fs.make_node, ROOT_NUMBER, b"n", stat.S_IFREG | 0o600, UID, GID),
        }[kind]
        if case.since_ns is None:
            await make()
        else:
            await fs.repeated.make(ROOT_NUMBER, b"n", UID, case.since_ns, make)

    async def check(case: Case) -> None:
        assert await names(case) == ["n"]
        entry = await case.fs.lookup(ROOT_NUMBER, b"n")
        assert entry.attributes.uid == UID
        assert len(case.store.keys()) == 1

    assert dies(tmp_path, prepare, call, check, {}) > 3


@pytest.mark.parametrize("no_replace", [False, True], ids=["", "no_replace"])
@pytest.mark.parametrize("reads", [False, True], ids=["closed", "open"])
def test_a_file_is_renamed(reads: bool, no_replace: bool, tmp_path: Path) -> None:
    objects = {"old": BEFORE} if no_replace else {"old": BEFORE, "new": b"replaced"}

    async def prepare(case: Case) -> None:
        case.numbers["inode"] = (await case.fs.lookup(ROOT_NUMBER, b"old")).inode
        if reads:
            await opened(case, "old", os.O_RDONLY)
            assert await whole(case, "old") == BEFORE
            if not no_replace:
                await opened(case, "new", os.O_RDONLY)
                assert await whole(case, "new") == b"replaced"

    async def call(case: Case) -> None:
        where = (ROOT_NUMBER, b"old", ROOT_NUMBER, b"new")
        if case.since_ns is None:
            await case.fs.rename(*where, no_replace=no_replace)
        else:
            await case.fs.repeated.rename(*where, no_replace=no_replace, since_ns=case.since_ns)

    async def check(case: Case) -> None:
        assert case.store.content("new") == BEFORE
        assert "old" not in case.store.objects
        assert await names(case) == ["new"]
        entry = await case.fs.lookup(ROOT_NUMBER, b"new")
        assert entry.inode == case.numbers["inode"]
        if reads:
            assert await whole(case, "old") == BEFORE
            if not no_replace:
                assert await whole(case, "new") == b"replaced"

    if reads or not no_replace:
        assert dies(tmp_path, prepare, call, check, objects) > 3


def test_a_file_that_was_never_stored_is_renamed(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        flags = os.O_WRONLY | os.O_CREAT
        reply, _ = await case.fs.create(ROOT_NUMBER, b"old", 0o640, flags, UID, GID)
        case.numbers["old"] = reply.handle
        await written(case, reply.handle, 0, b"bytes")

    async def call(case: Case) -> None:
        where = (ROOT_NUMBER, b"old", ROOT_NUMBER, b"new")
        if case.since_ns is None:
            await case.fs.rename(*where, no_replace=False)
        else:
            await case.fs.repeated.rename(*where, no_replace=False, since_ns=case.since_ns)

    async def check(case: Case) -> None:
        await case.fs.flush(case.numbers["old"])
        assert case.store.keys() == ["new"]
        assert case.store.content("new") == b"bytes"

    assert dies(tmp_path, prepare, call, check, {}) > 1


@pytest.mark.parametrize("early", [False, True], ids=["", "early"])
def test_a_directory_is_renamed_with_what_is_open_in_it(early: bool, tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        directory = await case.fs.lookup(ROOT_NUMBER, b"d")
        entry = await case.fs.lookup(directory.inode, b"file")
        reply = await case.fs.open(entry.inode, os.O_RDONLY, UID)
        case.numbers["file"] = reply.handle
        assert await whole(case, "file") == BEFORE

    async def call(case: Case) -> None:
        where = (ROOT_NUMBER, b"d", ROOT_NUMBER, b"e")
        if case.since_ns is None:
            await case.fs.rename(*where, no_replace=False)
        else:
            await case.fs.repeated.rename(*where, no_replace=False, since_ns=case.since_ns)

    async def check(case: Case) -> None:
        assert case.store.keys() == ["e/", "e/file", "e/other"]
        assert await names(case) == ["e"]
        assert await whole(case, "file") == BEFORE

    objects = {"d/": b"", "d/file": BEFORE, "d/other": b"other"}
    assert dies(tmp_path, prepare, call, check, objects, early=early) > 6


@pytest.mark.parametrize("stored", [False, True], ids=["new", "stored"])
def test_a_removed_file_stays_with_who_has_it_open(stored: bool, tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        if stored:
            await opened(case, "file", os.O_RDWR)
        else:
            flags = os.O_RDWR | os.O_CREAT
            reply, _ = await case.fs.create(ROOT_NUMBER, b"file", 0o640, flags, UID, GID)
            case.numbers["file"] = reply.handle
            await written(case, reply.handle, 0, BEFORE)
        assert await whole(case, "file") == BEFORE

    async def call(case: Case) -> None:
        if case.since_ns is None:
            await case.fs.unlink(ROOT_NUMBER, b"file")
        else:
            await case.fs.repeated.unlink(ROOT_NUMBER, b"file")

    async def check(case: Case) -> None:
        assert await names(case) == []
        assert await whole(case, "file") == BEFORE
        await written(case, case.numbers["file"], 10, b"written")
        assert await whole(case, "file") == BEFORE[:10] + b"written" + BEFORE[17:]
        await case.fs.flush(case.numbers["file"])
        await case.fs.release(case.numbers["file"])
        assert case.store.keys() == []

    objects = {"file": BEFORE} if stored else {}
    assert dies(tmp_path, prepare, call, check, objects) > 1


def test_attributes_of_an_open_file_are_changed(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        case.numbers["inode"] = (await case.fs.lookup(ROOT_NUMBER, b"file")).inode
        await opened(case, "file", os.O_RDONLY)
        assert await whole(case, "file") == BEFORE

    async def call(case: Case) -> None:
        change = AttributeChange(mode=0o600)
        reply = await case.fs.set_attributes(case.numbers["inode"], change, None, None)
        assert stat.S_IMODE(reply.attributes.mode) == 0o600

    async def check(case: Case) -> None:
        assert await whole(case, "file") == BEFORE
        assert case.store.metadata("file")["mode"] == str(stat.S_IFREG | 0o600)

    assert dies(tmp_path, prepare, call, check, {"file": BEFORE}) > 2


def test_names_are_removed_once(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        for name in (b"d", b"file"):
            await case.fs.lookup(ROOT_NUMBER, name)

    async def call(case: Case) -> None:
        if case.since_ns is None:
            await case.fs.unlink(ROOT_NUMBER, b"file")
            await case.fs.remove_directory(ROOT_NUMBER, b"d")
        else:
            await case.fs.repeated.unlink(ROOT_NUMBER, b"file")
            await case.fs.repeated.remove_directory(ROOT_NUMBER, b"d")

    async def check(case: Case) -> None:
        assert await names(case) == []
        assert case.store.keys() == []

    assert dies(tmp_path, prepare, call, check, {"d/": b"", "file": b"x"}) > 3


def test_a_commit_that_arrives_late_is_waited_for(tmp_path: Path) -> None:
    """It had left when its daemon died, and the next one has changed the file by then."""
    first, changed = BEFORE[:40] + b"first." + BEFORE[46:], BEFORE[:40] + b"other." + BEFORE[46:]
    store, memory = WatchedStore(), os.memfd_create("first")
    moments: list[Moment] = []
    store.seed("file", BEFORE)

    async def dying() -> None:
        async with life(memory, tmp_path / "1", store) as (_, fs):
            case = Case(fs, store)
            await opened(case, "file", os.O_RDWR)
            await written(case, 1, 40, b"first.")
            told_handles(fs, memory)
            store.moments = moments
            await fs.fsync(1)
            store.moments = None

    async def following(moment: Moment) -> None:
        again = os.memfd_create("second")
        os.pwrite(again, moment.memory, 0)

        async def arrives() -> None:
            await trio.sleep(1)
            moment.store.seed("file", first)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrives)
            async with life(again, moment.state, moment.store, sent_seconds=5.0) as (_, fs):
                await written(Case(fs, moment.store), 1, 40, b"other.")
                await fs.fsync(1)
                assert moment.store.content("file") == changed
        os.close(again)

    run(dying)
    under_way = [each for each in moments if each.name.startswith("before complete")]
    assert under_way
    run(partial(following, under_way[-1]))
    os.close(memory)


def test_the_end_of_the_mount_waits_for_what_an_earlier_daemon_has_stored(tmp_path: Path) -> None:
    async def ending() -> None:
        memory, store = os.memfd_create("first"), WatchedStore()
        store.seed("file", BEFORE)
        async with life(memory, tmp_path / "1", store) as (_, fs):
            await opened(Case(fs, store), "file", os.O_RDWR)
            await written(Case(fs, store), 1, 0, b"changed")
            settled = fs._settled = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fs.drain)
                await trio.testing.wait_all_tasks_blocked(0.1)
                assert store.content("file") == BEFORE
                fs._settled = None
                settled.set()
            assert store.content("file") == b"changed" + BEFORE[7:]
        os.close(memory)

    run(ending)


@pytest.mark.parametrize("size", [30, 130], ids=["cut", "longer"])
@pytest.mark.parametrize("by_path", [False, True], ids=["", "by path"])
def test_the_new_size_of_an_open_file_is_stored(size: int, by_path: bool, tmp_path: Path) -> None:
    """No byte was written that would tell whether the object is the dead daemon's."""
    whole_now = BEFORE[:size] + bytes(max(0, size - len(BEFORE)))

    async def prepare(case: Case) -> None:
        await opened(case, "file", os.O_RDWR)
        case.numbers["inode"] = (await case.fs.lookup(ROOT_NUMBER, b"file")).inode

    async def call(case: Case) -> None:
        handle = None if by_path else case.numbers["file"]
        await case.fs.set_attributes(case.numbers["inode"], AttributeChange(), size, handle)
        await case.fs.fsync(case.numbers["file"])

    async def check(case: Case) -> None:
        assert case.store.content("file") == whole_now == await whole(case, "file")

    assert dies(tmp_path, prepare, call, check, {"file": BEFORE}) > 3


@pytest.mark.parametrize("early", [False, True], ids=["", "early"])
def test_a_directory_is_renamed_with_what_waits_in_it(
    early: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With write-back, when the journal knew that the rename counts."""
    record = Journal.record_rename

    async def prepare(case: Case) -> None:
        def recorded(journal: Journal, *prefixes: str, **told: Any) -> None:
            record(journal, *prefixes, **told)
            case.store.take_down(f"after noting the rename, {told['is_copied']}")

        monkeypatch.setattr(Journal, "record_rename", recorded)
        fs = case.fs
        made = await fs.make_directory(ROOT_NUMBER, b"d", 0o755, UID, GID)
        below = await fs.make_directory(made.inode, b"s", 0o755, UID, GID)
        for name, parent in ((b"file", made.inode), (b"other", below.inode)):
            reply, _ = await fs.create(parent, name, 0o644, os.O_RDWR, UID, GID)
            await written(case, reply.handle, 0, BEFORE)
            await fs.flush(reply.handle)
            if name == b"file":
                await fs.release(reply.handle)

    async def call(case: Case) -> None:
        where = (ROOT_NUMBER, b"d", ROOT_NUMBER, b"e")
        if case.since_ns is None:
            await case.fs.rename(*where, no_replace=False)
        else:
            await case.fs.repeated.rename(*where, no_replace=False, since_ns=case.since_ns)

    async def check(case: Case) -> None:
        assert await names(case) == ["e"]
        await case.fs.drain()
        assert case.store.content("e/file") == case.store.content("e/s/other") == BEFORE
        assert not [key for key in case.store.keys() if key.startswith("d")]  # noqa: SIM118

    assert dies(tmp_path, prepare, call, check, {}, early=early, write_back=True) > 2
