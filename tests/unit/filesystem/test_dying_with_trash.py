"""A daemon of a mount with a trash that dies while something is removed or replaced: what was there
is in the trash, and what was removed does not come back."""

import os
from functools import partial
from pathlib import Path

import pytest

from ossfs_py.model import AttributeChange
from ossfs_py.namespace.inode import ROOT_NUMBER
from tests.support.dying import BEFORE, UID, Case, dies, names, opened, written

TRASH = ".ossfs-py-trash/"
mortal = partial(dies, trash=TRASH, removes_behind=True)


def kept(case: Case, name: str) -> list[bytes]:
    """Copies in the trash, each content once."""
    found = {
        case.store.content(key)
        for key in case.store.objects
        if key.startswith(TRASH) and f"/{name}" in key
    }
    return sorted(found)


async def gone(case: Case, *keys: str) -> None:
    """What was removed is deleted behind, some of it by a round that follows."""
    await case.fs.removals_tried()
    await case.fs.sync()
    assert not set(keys) & set(case.store.objects)


def test_what_is_removed_is_kept_and_does_not_come_back(tmp_path: Path) -> None:
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
        await gone(case, "file", "d/")
        assert kept(case, "file") == [BEFORE]

    assert mortal(tmp_path, prepare, call, check, {"d/": b"", "file": BEFORE}) > 1


@pytest.mark.parametrize("over", [False, True], ids=["", "over"])
def test_what_a_rename_replaces_is_kept(over: bool, tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        await case.fs.lookup(ROOT_NUMBER, b"old")

    async def call(case: Case) -> None:
        where = (ROOT_NUMBER, b"old", ROOT_NUMBER, b"file")
        if case.since_ns is None:
            await case.fs.rename(*where, no_replace=False)
        else:
            await case.fs.repeated.rename(*where, no_replace=False, since_ns=case.since_ns)

    async def check(case: Case) -> None:
        assert await names(case) == ["file"]
        assert case.store.content("file") == b"renamed"
        if over:
            # A rename that is done again may keep a copy of what it had put there itself.
            assert BEFORE in kept(case, "file")
            assert set(kept(case, "file")) <= {BEFORE, b"renamed"}

    objects = {"old": b"renamed"} | ({"file": BEFORE} if over else {})
    assert mortal(tmp_path, prepare, call, check, objects) > 3


def test_what_a_commit_replaces_is_kept_once_for_each_opening(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        await opened(case, "file", os.O_RDWR | os.O_TRUNC)
        await written(case, case.numbers["file"], 0, b"first")
        await case.fs.fsync(case.numbers["file"])
        await case.fs.set_attributes(
            (await case.fs.lookup(ROOT_NUMBER, b"file")).inode,
            AttributeChange(),
            0,
            case.numbers["file"],
        )
        await written(case, case.numbers["file"], 0, b"second")

    async def call(case: Case) -> None:
        await case.fs.fsync(case.numbers["file"])

    async def check(case: Case) -> None:
        assert case.store.content("file") == b"second"
        assert kept(case, "file") == [BEFORE]

    assert mortal(tmp_path, prepare, call, check, {"file": BEFORE}) > 3


def test_a_name_that_is_used_again_after_a_removal_is_the_new_file(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        await case.fs.lookup(ROOT_NUMBER, b"file")
        await case.fs.unlink(ROOT_NUMBER, b"file")

    async def call(case: Case) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        reply, _ = await case.fs.create(ROOT_NUMBER, b"file", 0o640, flags, UID, UID)
        await written(case, reply.handle, 0, b"new")
        await case.fs.flush(reply.handle)
        await case.fs.release(reply.handle)

    async def check(case: Case) -> None:
        await case.fs.removals_tried()
        assert await names(case) == ["file"]
        assert case.store.content("file") == b"new"
        assert BEFORE in kept(case, "file")

    assert mortal(tmp_path, prepare, call, check, {"file": BEFORE}) > 3
