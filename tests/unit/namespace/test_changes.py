"""Making and removing entries; symlinks."""

import stat
from collections.abc import Callable
from typing import Any

import outcome
import pytest
import trio

from ossfs_py.errors import (
    DirectoryNotEmptyError,
    EntryExistsError,
    InvalidArgumentError,
    IsADirectoryPathError,
    NameTooLongError,
    NoSuchEntryError,
    NotADirectoryPathError,
    ReadOnlyError,
    StoreUnavailableError,
)
from ossfs_py.model import AttributeChange, CommitRequest, ObjectVersion
from ossfs_py.namespace.metadata import decode
from ossfs_py.namespace.namespace import Kind
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted


def test_mkdir_writes_a_marker_with_the_callers_attributes() -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o1750, 5, 6)
        attributes = m.namespace.attributes_nowait(d)
        assert attributes is not None
        assert (attributes.mode, attributes.uid, attributes.gid) == (stat.S_IFDIR | 0o1750, 5, 6)
        assert m.store.content("d/") == b""
        assert decode(m.store.metadata("d/")).mode == stat.S_IFDIR | 0o1750
        assert m.store.objects["d/"].info.content_type == "application/x-directory"
        assert await m.at("d") is d
        assert await m.names(m.root) == ["d"]
        m.store.take_requests()
        with pytest.raises(EntryExistsError):
            await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        assert m.store.take_requests() == {}

    mounted(run)


def test_new_entries_of_a_set_group_id_directory_belong_to_its_group() -> None:
    async def run(m: Mounted) -> None:
        team = await m.namespace.make_directory(m.root, "team", 0o2775, 5, 6)
        below = await m.namespace.make_directory(team, "below", 0o755, 7, 8)
        link = await m.namespace.make_symlink(below, "link", b"file", 7, 8)
        file = m.create(below, "file")
        for inode in (below, link, file):
            attributes = m.namespace.attributes_nowait(inode)
            assert attributes is not None
            assert attributes.gid == 6
        assert decode(m.store.metadata("team/below/")).mode == stat.S_IFDIR | 0o2755

    mounted(run)


def test_mkdir_after_a_lookup_costs_one_request() -> None:
    async def run(m: Mounted) -> None:
        with pytest.raises(NoSuchEntryError):
            await m.at("d")
        m.store.take_requests()
        await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        assert m.store.take_requests() == {"put": 1}

    mounted(run)


@pytest.mark.parametrize("key", ["d", "d/", "d/x"])
def test_mkdir_sees_what_others_made(key: str) -> None:
    store = FakeStore()
    store.seed(key)

    async def run(m: Mounted) -> None:
        with pytest.raises(EntryExistsError):
            await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)

    mounted(run, store)


def test_rmdir_removes_the_marker_of_an_empty_directory() -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        await m.namespace.remove_directory(m.root, "d")
        assert m.store.keys() == []
        assert d.removed
        assert await m.names(m.root) == []
        with pytest.raises(NoSuchEntryError):
            await m.at("d")
        with pytest.raises(NoSuchEntryError):
            m.create(d, "x")

    mounted(run)


@pytest.mark.parametrize("key", ["d/x", "d/e/x", "d//x"])
def test_rmdir_refuses_what_the_store_still_holds(key: str) -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        await m.names(d)
        m.store.seed(key)
        with pytest.raises(DirectoryNotEmptyError):
            await m.namespace.remove_directory(m.root, "d")
        assert "d/" in m.store.objects

    mounted(run)


def test_rmdir_refuses_a_directory_with_local_files() -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        local = m.create(d, "x")
        with pytest.raises(DirectoryNotEmptyError):
            await m.namespace.remove_directory(m.root, "d")
        m.namespace.drop_local(local)
        await m.namespace.remove_directory(m.root, "d")

    mounted(run)


def test_rmdir_of_a_file_and_unlink_of_a_directory_are_refused() -> None:
    store = FakeStore()
    store.seed("f", b"x")
    store.seed("d/x", b"x")

    async def run(m: Mounted) -> None:
        with pytest.raises(NotADirectoryPathError):
            await m.namespace.remove_directory(m.root, "f")
        with pytest.raises(IsADirectoryPathError):
            await m.namespace.unlink(m.root, "d")
        assert m.store.keys() == ["d/x", "f"]

    mounted(run, store)


def test_a_local_file_is_visible_and_costs_no_request_until_it_is_stored() -> None:
    async def run(m: Mounted) -> None:
        file = m.create(m.root, "f")
        assert await m.at("f") is file
        attributes = await m.namespace.attributes(file)
        assert (attributes.mode, attributes.size) == (stat.S_IFREG | 0o640, 0)
        assert (attributes.uid, attributes.gid, attributes.nlink) == (7, 8, 1)
        with pytest.raises(EntryExistsError):
            m.create(m.root, "f")
        assert await m.namespace.unlink(m.root, "f") is file
        assert file.removed
        assert m.namespace.attributes_known(file).nlink == 0
        assert m.store.take_requests() == {}

    mounted(run)


def test_a_committed_file_keeps_its_time_and_attributes() -> None:
    async def run(m: Mounted) -> None:
        file = m.create(m.root, "f")
        before = m.namespace.attributes_known(file)
        m.commit(file, b"12345")
        assert not file.local
        after = m.namespace.attributes_nowait(file)
        assert after is not None
        assert (after.size, after.mtime_ns, after.mode) == (5, before.mtime_ns, before.mode)
        m.clock.jump(61)
        later = await m.namespace.attributes(file)
        assert (later.mtime_ns, later.mode, later.uid) == (before.mtime_ns, before.mode, 7)
        assert m.changed == []

    mounted(run)


def test_the_size_of_a_file_being_written_is_what_its_writer_says() -> None:
    async def run(m: Mounted) -> None:
        file = m.create(m.root, "f")
        file.size_source = lambda: 42
        assert m.namespace.attributes_known(file).size == 42

    mounted(run)


def test_unlink_deletes_the_object_at_once() -> None:
    store = FakeStore()
    store.seed("f", b"x")

    async def run(m: Mounted) -> None:
        file = await m.at("f")
        await m.names(m.root)
        assert await m.namespace.unlink(m.root, "f") is file
        assert m.store.keys() == []
        assert await m.names(m.root) == []
        with pytest.raises(NoSuchEntryError):
            await m.at("f")
        assert m.namespace.attributes_nowait(file) is not None

    mounted(run, store)


def test_a_failed_unlink_leaves_the_file() -> None:
    store = FakeStore()
    store.seed("f", b"x")

    async def run(m: Mounted) -> None:
        file = await m.at("f")
        m.store.fail("delete", StoreUnavailableError("503"))
        with pytest.raises(StoreUnavailableError):
            await m.namespace.unlink(m.root, "f")
        assert await m.at("f") is file
        assert not file.removed

    mounted(run, store)


@pytest.mark.parametrize("listed", [True, False])
def test_a_directory_emptied_here_stays_until_removed(listed: bool) -> None:
    store = FakeStore()
    store.seed("d/a", b"x")
    store.seed("d/b", b"x")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        if listed:
            await m.names(d)
        m.store.take_requests()
        await m.namespace.unlink(d, "a") if listed else await m.namespace.unlink(
            d, (await m.at("d/a")).name
        )
        assert m.store.keys() == ["d/b"]
        if listed:
            assert m.store.take_requests() == {"delete": 1}
        await m.namespace.unlink(d, "b")
        assert m.store.keys() == ["d/"]
        if listed:
            assert m.store.take_requests() == {"delete": 1, "put": 1}
        m.clock.jump(61)
        assert await m.names(m.root) == ["d"]
        await m.namespace.remove_directory(m.root, "d")
        assert m.store.keys() == []

    mounted(run, store)


def test_a_directory_with_a_marker_needs_no_question_when_it_is_emptied() -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        m.commit(m.create(d, "f"), b"x")
        m.store.take_requests()
        await m.namespace.unlink(d, "f")
        assert m.store.take_requests() == {"delete": 1}

    mounted(run)


def test_a_failing_marker_does_not_fail_the_unlink() -> None:
    store = FakeStore()
    store.seed("d/a", b"x")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.at("d/a")
        m.store.fail("list_page", StoreUnavailableError("503"))
        await m.namespace.unlink(d, "a")
        assert m.store.keys() == []

    mounted(run, store)


def test_removing_the_last_directory_in_an_implicit_one_keeps_that_visible() -> None:
    store = FakeStore()
    store.seed("a/b/", b"")

    async def run(m: Mounted) -> None:
        a = await m.at("a")
        await m.namespace.remove_directory(a, "b")
        assert m.store.keys() == ["a/"]

    mounted(run, store)


def test_a_symlink_is_a_zero_byte_object_with_its_target_in_metadata() -> None:
    target = "../blobs/模型 1".encode()

    async def run(m: Mounted) -> None:
        link = await m.namespace.make_symlink(m.root, "l", target, 5, 6)
        attributes = await m.namespace.attributes(link)
        assert attributes.mode == stat.S_IFLNK | 0o777
        assert (attributes.size, attributes.uid) == (len(target), 5)
        assert m.store.content("l") == b""
        stored = m.store.metadata("l")
        assert stored["symlink-target"] == (f"header:{len(target)}:../blobs/%E6%A8%A1%E5%9E%8B%201")
        assert stored["mode"] == "41471"
        assert await m.namespace.read_link(link) == target
        with pytest.raises(EntryExistsError):
            await m.namespace.make_symlink(m.root, "l", b"x", 0, 0)

    store = mounted(run)

    async def remounted(m: Mounted) -> None:
        link = await m.at("l")
        assert link.kind is Kind.SYMLINK
        assert await m.namespace.read_link(link) == target
        assert (await m.namespace.attributes(link)).uid == 5

    mounted(remounted, store)


@pytest.mark.parametrize(
    "metadata", [{"mode": "41471"}, {"symlink-target": "body:0:", "mode": "41471"}]
)
def test_a_symlink_whose_content_is_its_target_is_read_once(metadata: dict[str, str]) -> None:
    store = FakeStore()
    store.seed("l", b"some/where\n", metadata=metadata)

    async def run(m: Mounted) -> None:
        link = await m.at("l")
        assert link.kind is Kind.SYMLINK
        for _ in range(2):
            assert await m.namespace.read_link(link) == b"some/where"
        assert m.store.requests["get_range_into"] == 1
        m.clock.jump(61)
        assert dict(await m.entries(m.root))["l"] is link

    mounted(run, store)


def test_unusable_links_and_files_are_no_links() -> None:
    store = FakeStore()
    store.seed("empty-link", metadata={"mode": "41471"})
    store.seed("f", b"x")

    async def run(m: Mounted) -> None:
        for name in ("empty-link", "f"):
            with pytest.raises(InvalidArgumentError):
                await m.namespace.read_link(await m.at(name))

    mounted(run, store)


def test_a_symlink_target_that_does_not_fit_the_metadata_is_too_long() -> None:
    async def run(m: Mounted) -> None:
        with pytest.raises(NameTooLongError):
            await m.namespace.make_symlink(m.root, "l", b"x" * 2048, 0, 0)

    mounted(run)


def test_nothing_changes_on_a_read_only_mount() -> None:
    store = FakeStore()
    store.seed("f", b"x")
    store.seed("d/", b"")

    async def run(m: Mounted) -> None:
        f = await m.at("f")
        await m.at("d")
        m.store.take_requests()
        n = m.namespace
        for attempt in (
            lambda: n.make_directory(m.root, "x", 0o755, 0, 0),
            lambda: n.make_symlink(m.root, "x", b"y", 0, 0),
            lambda: n.unlink(m.root, "f"),
            lambda: n.remove_directory(m.root, "d"),
            lambda: n.rename(m.root, "f", m.root, "g"),
            lambda: n.set_attributes(f, AttributeChange(mode=0o600), defer=False),
            lambda: n.set_xattr(f, b"user.k", b"v"),
            lambda: n.remove_xattr(f, b"user.k"),
        ):
            with pytest.raises(ReadOnlyError):
                await attempt()
        with pytest.raises(ReadOnlyError):
            m.create(m.root, "x")
        assert m.store.take_requests() == {}

    mounted(run, store, read_only=True)


def test_a_directorys_time_moves_with_its_entries() -> None:
    async def run(m: Mounted) -> None:
        before = m.namespace.attributes_known(m.root).mtime_ns
        m.create(m.root, "f")
        after = m.namespace.attributes_known(m.root).mtime_ns
        assert after > before

    mounted(run)


def test_a_commit_under_an_outdated_key_is_not_believed() -> None:
    async def run(m: Mounted) -> None:
        file = m.create(m.root, "f")
        metadata = m.namespace.commit_metadata(file, explicit_mtime_only=True)
        version = m.store.seed("f", b"x", metadata=metadata)
        await m.namespace.rename(m.root, "f", m.root, "g")
        m.namespace.note_commit(file, version, metadata)
        assert m.namespace.attributes_nowait(file) is None

    mounted(run)


def test_attributes_of_a_directory_made_here_cost_one_request() -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o755, 7, 8)
        m.store.take_requests()
        for mode in (0o700, 0o711):
            change = AttributeChange(mode=mode)
            await m.namespace.set_attributes(d, change, defer=False)
        assert m.store.take_requests() == {"put": 2}
        assert m.store.metadata("d/")["mode"] == str(0o40711)

    mounted(run)


def test_a_marker_that_others_wrote_is_changed_with_all_that_is_stored_beside_it() -> None:
    async def run(m: Mounted) -> None:
        d = await m.namespace.make_directory(m.root, "d", 0o755, 7, 8)
        m.store.seed("d/", metadata={"theirs": "1"}, content_type="application/x-theirs")
        m.clock.jump(61)
        await m.namespace.attributes(d)
        m.store.take_requests()
        await m.namespace.set_attributes(d, AttributeChange(mode=0o700), defer=False)
        assert "copy" in m.store.take_requests()
        assert m.store.metadata("d/")["theirs"] == "1"
        assert m.store.objects["d/"].info.content_type == "application/x-theirs"

    mounted(run)


def test_a_marker_takes_no_thread_where_the_store_can_do_without() -> None:
    """What it leaves to a thread is stored once, too."""

    class Puts:
        def __init__(self, store: FakeStore) -> None:
            self.store = store
            self.begun: list[str] = []

        def begin(
            self,
            request: CommitRequest,
            body: bytes,
            ended: Callable[[outcome.Outcome[ObjectVersion]], None],
            gave_up: Callable[[bool], None],
        ) -> bool:
            self.begun.append(request.key)
            token = trio.lowlevel.current_trio_token()
            if request.key == "refused/":
                return False
            if request.key == "lost/":
                token.run_sync_soon(gave_up, True)
                return True
            version = self.store.put(request, body)
            token.run_sync_soon(ended, outcome.Value(version))
            return True

    async def run(m: Mounted) -> None:
        entries: Any = m.namespace._entries
        puts = entries._puts = Puts(m.store)
        for name in ("d", "refused", "lost"):
            made = await m.namespace.make_directory(m.root, name, 0o750, 5, 6)
            assert made.info is not None
            assert made.info.key == f"{name}/"
        assert puts.begun == ["d/", "refused/", "lost/"]
        assert m.store.keys() == ["d/", "lost/", "refused/"]

    mounted(run)
