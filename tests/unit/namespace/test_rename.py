"""Renaming files and directories."""

import logging

import pytest

from ossfs_py.errors import (
    DirectoryNotEmptyError,
    EntryExistsError,
    InvalidArgumentError,
    IsADirectoryPathError,
    NameTooLongError,
    NoSuchEntryError,
    NotADirectoryPathError,
    StaleInodeError,
    StoreUnavailableError,
    UnsupportedByStoreError,
)
from ossfs_py.model import AttributeChange, ObjectVersion
from ossfs_py.namespace.namespace import Inode, Kind
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted


def store_of(*keys: str) -> FakeStore:
    store = FakeStore()
    for key in keys:
        store.seed(key, b"" if key.endswith("/") else key.encode(), metadata={"origin": key})
    return store


def test_a_file_is_copied_then_deleted() -> None:
    async def run(m: Mounted) -> None:
        a = await m.at("a")
        d = await m.at("d")
        before = m.namespace.attributes_known(a)
        m.store.take_requests()
        with pytest.raises(NoSuchEntryError):
            await m.at("d/b")
        m.store.take_requests()
        assert await m.namespace.rename(m.root, "a", d, "b") is a
        assert m.store.take_requests() == {"copy": 1, "delete": 1}
        assert m.store.keys() == ["d/", "d/b"]
        assert m.store.content("d/b") == b"a"
        assert m.store.metadata("d/b") == {"origin": "a"}
        assert await m.at("d/b") is a
        assert a.info is not None
        assert a.info.version == m.store.objects["d/b"].info.version
        after = m.namespace.attributes_nowait(a)
        assert after is not None
        assert (after.ino, after.mtime_ns) == (before.ino, before.mtime_ns)
        with pytest.raises(NoSuchEntryError):
            await m.at("a")
        m.clock.jump(61)
        assert (await m.namespace.attributes(a)).mtime_ns == before.mtime_ns
        assert m.changed == []

    mounted(run, store_of("a", "d/"))


def test_listings_show_a_rename_at_once() -> None:
    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == ["a", "d"]
        d = await m.at("d")
        assert await m.names(d) == ["x"]
        await m.namespace.rename(m.root, "a", d, "b")
        m.store.take_requests()
        assert await m.names(m.root) == ["d"]
        assert sorted(await m.names(d)) == ["b", "x"]
        assert m.store.take_requests() == {}

    mounted(run, store_of("a", "d/x"))


def test_a_file_replaces_a_file() -> None:
    async def run(m: Mounted) -> None:
        a, b = await m.at("a"), await m.at("b")
        await m.names(m.root)
        await m.namespace.rename(m.root, "a", m.root, "b")
        assert m.store.content("b") == b"a"
        assert await m.at("b") is a
        assert b.removed
        assert await m.names(m.root) == ["b"]
        with pytest.raises(EntryExistsError):
            m.commit(m.create(m.root, "c"), b"c")
            await m.namespace.rename(m.root, "c", m.root, "b", no_replace=True)

    mounted(run, store_of("a", "b"))


def test_renaming_a_name_to_itself_does_nothing() -> None:
    async def run(m: Mounted) -> None:
        await m.at("a")
        m.store.take_requests()
        await m.namespace.rename(m.root, "a", m.root, "a")
        assert m.store.take_requests() == {}

    mounted(run, store_of("a"))


def test_targets_follow_the_rules_of_rename() -> None:
    async def run(m: Mounted) -> None:
        rename = m.namespace.rename
        with pytest.raises(IsADirectoryPathError):
            await rename(m.root, "f", m.root, "empty")
        with pytest.raises(NotADirectoryPathError):
            await rename(m.root, "empty", m.root, "f")
        with pytest.raises(DirectoryNotEmptyError):
            await rename(m.root, "empty", m.root, "full")
        full = await m.at("full")
        sub = await m.at("full/sub")
        for place in (full, sub):
            with pytest.raises(InvalidArgumentError):
                await rename(m.root, "full", place, "x")
        with pytest.raises(NoSuchEntryError):
            await rename(m.root, "absent", m.root, "x")
        assert m.store.requests["copy"] == 0
        assert await rename(m.root, "full", m.root, "empty") is full
        assert m.store.keys() == ["empty/", "empty/sub/x", "f"]

    mounted(run, store_of("f", "empty/", "full/sub/x"))


def test_a_file_changed_by_others_is_moved_as_it_is_now() -> None:
    async def run(m: Mounted) -> None:
        await m.at("a")
        m.store.seed("a", b"newer")
        await m.namespace.rename(m.root, "a", m.root, "b")
        assert m.store.content("b") == b"newer"
        assert m.store.keys() == ["b"]

    mounted(run, store_of("a"))


def test_a_file_deleted_by_others_is_not_there() -> None:
    async def run(m: Mounted) -> None:
        await m.at("a")
        m.store.erase("a")
        with pytest.raises(NoSuchEntryError):
            await m.namespace.rename(m.root, "a", m.root, "b")

    mounted(run, store_of("a"))


def test_a_failed_copy_leaves_the_source() -> None:
    async def run(m: Mounted) -> None:
        a = await m.at("a")
        m.store.fail("copy", StoreUnavailableError("503"))
        with pytest.raises(StoreUnavailableError):
            await m.namespace.rename(m.root, "a", m.root, "b")
        assert m.store.keys() == ["a"]
        assert await m.at("a") is a

    mounted(run, store_of("a"))


def test_a_failed_delete_leaves_both_and_the_mount_sees_them() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        m.store.fail("delete", StoreUnavailableError("503"))
        with pytest.raises(StoreUnavailableError):
            await m.namespace.rename(m.root, "a", m.root, "b")
        assert m.store.keys() == ["a", "b"]
        assert await m.names(m.root) == ["a", "b"]
        await m.at("a")
        await m.at("b")

    mounted(run, store_of("a"))


def test_a_local_file_moves_without_a_request() -> None:
    async def run(m: Mounted) -> None:
        d = await m.at("d")
        file = m.create(m.root, "f")
        with pytest.raises(NoSuchEntryError):
            await m.at("d/g")
        m.store.take_requests()
        await m.namespace.rename(m.root, "f", d, "g")
        assert m.store.take_requests() == {}
        assert await m.at("d/g") is file
        assert "f" not in await m.names(m.root)
        m.commit(file, b"1")
        assert m.store.keys() == ["d/", "d/g"]

    mounted(run, store_of("d/"))


def test_a_local_file_over_a_stored_one_takes_its_place() -> None:
    async def run(m: Mounted) -> None:
        old = await m.at("a")
        file = m.create(m.root, "tmp")
        await m.namespace.rename(m.root, "tmp", m.root, "a")
        assert await m.at("a") is file
        assert old.removed
        assert await m.names(m.root) == ["a"]
        await m.namespace.unlink(m.root, "a")
        assert m.store.keys() == []

    mounted(run, store_of("a"))


def test_a_local_file_that_moves_on_takes_the_object_it_replaced_away() -> None:
    async def run(m: Mounted) -> None:
        await m.at("a")
        file = m.create(m.root, "tmp")
        await m.namespace.rename(m.root, "tmp", m.root, "a")
        await m.namespace.rename(m.root, "a", m.root, "b")
        assert m.store.keys() == []
        m.commit(file, b"1")
        assert m.store.keys() == ["b"]

    mounted(run, store_of("a"))


def test_a_directory_moves_with_everything_below() -> None:
    keys = ["d/", "d/a", "d/sub/", "d/sub/b", "d/implicit/c", "d//hidden", "e/x"]

    async def run(m: Mounted) -> None:
        d, a, b = await m.at("d"), await m.at("d/a"), await m.at("d/sub/b")
        sub = await m.at("d/sub")
        local = m.create(sub, "local")
        await m.names(sub)
        a.open_count = 1
        local.open_count = 1
        assert set(m.namespace.affected_by_rename(d)) == {a, local}
        copied: list[tuple[Inode, ObjectVersion, ObjectVersion]] = []
        before = m.store.objects["d/a"].info.version

        async def on_copied(copies: list[tuple[Inode, ObjectVersion, ObjectVersion]]) -> None:
            assert "d/a" in m.store.objects
            copied.extend(copies)

        assert await m.namespace.rename(m.root, "d", await m.at("e"), "n", on_copied=on_copied) is d
        assert m.store.keys() == [
            "e/n/",
            "e/n//hidden",
            "e/n/a",
            "e/n/implicit/c",
            "e/n/sub/",
            "e/n/sub/b",
            "e/x",
        ]
        assert m.store.content("e/n/sub/b") == b"d/sub/b"
        assert m.store.metadata("e/n/sub/b") == {"origin": "d/sub/b"}
        assert copied == [(a, before, m.store.objects["e/n/a"].info.version)]
        for inode, key in ((a, "e/n/a"), (b, "e/n/sub/b")):
            assert m.namespace.attributes_nowait(inode) is not None
            assert inode.info is not None
            assert inode.info.version == m.store.objects[key].info.version
        assert await m.at("e/n/a") is a
        assert await m.at("e/n/sub/b") is b
        assert await m.at("e/n/sub/local") is local
        assert sorted(await m.names(sub)) == ["b", "local"]
        assert m.namespace.key_of(local) == "e/n/sub/local"
        with pytest.raises(NoSuchEntryError):
            await m.at("d")
        assert await m.names(m.root) == ["e"]

    mounted(run, store_of(*keys))


def test_renaming_2000_files_copies_and_deletes_each_once_and_tells_its_progress(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run(m: Mounted) -> None:
        await m.at("d")
        m.store.take_requests()
        with caplog.at_level(logging.INFO):
            await m.namespace.rename(m.root, "d", m.root, "e")
        counts = m.store.take_requests()
        # One more for the directory itself: a marker of it may be there by now.
        assert (counts["copy"], counts["delete_many"], counts["delete"]) == (2000, 2, 1)
        assert m.store.keys() == [f"e/f{n:04}" for n in range(2000)]

    mounted(run, store_of(*(f"d/f{n:04}" for n in range(2000))))
    assert [r.getMessage() for r in caplog.records if "copied" in r.getMessage()] == [
        "renaming 'd/': copied 1000 of 2000 objects",
        "renaming 'd/': copied 2000 of 2000 objects",
    ]


def test_nothing_is_deleted_before_everything_is_copied() -> None:
    async def run(m: Mounted) -> None:
        await m.namespace.rename(m.root, "d", m.root, "e")
        methods = [method for method, _key in m.store.log if method != "list_page"]
        assert methods[methods.index("copy") :] == ["copy"] * 20 + ["delete_many"] * 21 + ["delete"]

    mounted(run, store_of(*(f"d/f{n}" for n in range(20))))


def test_markers_are_deleted_from_the_deepest_up_even_if_none_is_known() -> None:
    async def run(m: Mounted) -> None:
        await m.namespace.rename(m.root, "d", m.root, "moved")
        deleted = [key for method, key in m.store.log if method in {"delete", "delete_many"}][1:]
        assert sorted(deleted[:2]) == ["d/a/b/f", "d/g"]
        assert deleted[2:] == ["d/a/b/", "d/a/", "d/"]

    mounted(run, store_of("d/", "d/a/b/f", "d/g"))


def test_a_directory_that_cannot_be_copied_stays_and_can_be_renamed_later() -> None:
    keys = [f"d/f{n:02}" for n in range(20)]

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        m.store.fail("copy", StoreUnavailableError("503"), key="d/f10")
        with pytest.raises(StoreUnavailableError):
            await m.namespace.rename(m.root, "d", m.root, "e")
        assert m.store.keys() == keys
        assert await m.at("d") is d
        assert await m.names(m.root) == ["d"]
        await m.namespace.rename(m.root, "d", m.root, "e")
        assert m.store.keys() == [key.replace("d/", "e/") for key in keys]

    mounted(run, store_of(*keys))


def test_a_directory_rename_that_fails_while_deleting_leaves_the_target_complete() -> None:
    keys = [f"d/f{n:02}" for n in range(20)]

    async def run(m: Mounted) -> None:
        await m.names(await m.at("d"))
        m.store.fail("delete", StoreUnavailableError("503"), key="d/f10")
        with pytest.raises(StoreUnavailableError):
            await m.namespace.rename(m.root, "d", m.root, "e")
        assert {key for key in m.store.objects if key.startswith("e/")} == {
            key.replace("d/", "e/") for key in keys
        }
        assert await m.names(m.root) == ["d", "e"]
        left = [key.removeprefix("d/") for key in sorted(m.store.objects) if key.startswith("d/")]
        assert await m.names(await m.at("d")) == left

    mounted(run, store_of(*keys))


def test_a_store_without_batches_is_asked_to_delete_one_by_one() -> None:
    async def run(m: Mounted) -> None:
        m.store.fail("delete_many", UnsupportedByStoreError("no DeleteObjects here"), times=9)
        m.store.take_requests()
        await m.namespace.rename(m.root, "d", m.root, "e")
        assert m.store.take_requests()["delete"] == 21
        assert m.store.keys() == sorted(f"e/f{n}" for n in range(20))

    mounted(run, store_of(*(f"d/f{n}" for n in range(20))))


def test_objects_that_others_delete_meanwhile_are_left_out() -> None:
    async def run(m: Mounted) -> None:
        gone = await m.at("d/a")
        m.store.on_request = lambda method, _: m.store.erase("d/a") if method == "copy" else None
        await m.namespace.rename(m.root, "d", m.root, "e")
        assert m.store.keys() == ["e/b"]
        with pytest.raises(StaleInodeError):
            await m.namespace.attributes(gone)

    mounted(run, store_of("d/a", "d/b"), threads=1)


def test_objects_that_others_overwrite_meanwhile_are_moved_as_they_are() -> None:
    async def run(m: Mounted) -> None:
        a = await m.at("d/a")
        m.store.seed("d/a", b"newer than the mount knows")
        await m.namespace.rename(m.root, "d", m.root, "e")
        assert m.store.content("e/a") == b"newer than the mount knows"
        assert (await m.namespace.attributes(a)).size == 26
        assert m.changed == [a]

    mounted(run, store_of("d/a"))


def test_the_directory_left_behind_stays_visible() -> None:
    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.namespace.rename(d, "a", m.root, "a")
        assert m.store.keys() == ["a", "d/", "p/q/x"]
        sub = await m.at("p/q")
        await m.namespace.rename(await m.at("p"), "q", m.root, "q")
        assert m.store.keys() == ["a", "d/", "p/", "q/x"]
        assert sub.kind is Kind.DIRECTORY

    mounted(run, store_of("d/a", "p/q/x"))


def test_a_directory_of_local_files_only_moves_without_copies() -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        local = m.create(d, "x")
        m.store.erase("d/")
        await m.namespace.rename(m.root, "d", m.root, "e")
        assert m.namespace.key_of(local) == "e/x"
        assert await m.at("e/x") is local

    mounted(run)


def test_keys_that_would_become_too_long_stop_a_rename_before_it_begins() -> None:
    deep = "/".join(["d", *("x" * 200 for _ in range(4)), "y" * 150])

    async def run(m: Mounted) -> None:
        await m.at("d")
        with pytest.raises(NameTooLongError):
            await m.namespace.rename(m.root, "d", m.root, "n" * 255)
        assert m.store.requests["copy"] == 0
        assert m.store.keys() == [deep]

    mounted(run, store_of(deep))


def test_deferred_attributes_go_along_with_the_copy() -> None:
    async def run(m: Mounted) -> None:
        a = await m.at("a")
        await m.namespace.set_attributes(a, AttributeChange(mode=0o600), defer=True)
        await m.namespace.rename(m.root, "a", m.root, "b")
        assert m.store.metadata("b")["mode"] == str(0o100600)
        assert m.store.metadata("b")["origin"] == "a"

    mounted(run, store_of("a"))


def test_with_posix_metadata_a_moved_file_keeps_its_time_for_good() -> None:
    store = store_of("a")
    mtime_ns = store.objects["a"].info.mtime_ns

    async def run(m: Mounted) -> None:
        await m.namespace.rename(m.root, "a", m.root, "b")

    mounted(run, store, posix_metadata=True)

    async def remounted(m: Mounted) -> None:
        assert (await m.namespace.attributes(await m.at("b"))).mtime_ns == mtime_ns

    mounted(remounted, store, posix_metadata=True)
