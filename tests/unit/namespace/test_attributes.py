"""chmod, chown, utimens, extended attributes, and what an upload carries."""

import stat

import pytest
import trio

from ossfs_py.errors import (
    NoAttributeError,
    NoSuchEntryError,
    NotPermittedError,
    OperationUnsupportedError,
    RangeTooLargeError,
    StaleInodeError,
    StoreUnavailableError,
)
from ossfs_py.model import AttributeChange
from ossfs_py.namespace.metadata import decode
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

TIME_NS = 1_234_567_890_123_456_789


def store_with_file(**metadata: str) -> FakeStore:
    store = FakeStore()
    store.seed("f", b"12345", metadata=metadata, content_type="model/x")
    return store


def test_chmod_chown_and_utimens_survive_a_remount() -> None:
    store = store_with_file(origin="elsewhere")

    async def run(m: Mounted) -> None:
        f = await m.at("f")
        before = f.info
        m.store.take_requests()
        change = AttributeChange(
            mode=0o4711, uid=11, gid=12, atime_ns=TIME_NS + 1, mtime_ns=TIME_NS
        )
        attributes = await m.namespace.set_attributes(f, change, defer=False)
        assert m.store.take_requests() == {"copy": 1}
        assert attributes == m.namespace.attributes_nowait(f)
        assert f.info is not None
        assert f.info != before
        assert f.info.version == m.store.objects["f"].info.version
        assert m.store.content("f") == b"12345"
        assert m.store.metadata("f")["origin"] == "elsewhere"
        assert m.store.objects["f"].info.content_type == "model/x"
        assert not f.metadata_dirty
        assert m.changed == []

    mounted(run, store)

    async def remounted(m: Mounted) -> None:
        attributes = await m.namespace.attributes(await m.at("f"))
        # Stored as it was set, but from metadata no file is shown with somebody's rights to lend.
        assert m.store.metadata("f")["mode"] == str(stat.S_IFREG | 0o4711)
        assert attributes.mode == stat.S_IFREG | 0o711
        assert (attributes.uid, attributes.gid, attributes.size) == (11, 12, 5)
        assert (attributes.mtime_ns, attributes.atime_ns) == (TIME_NS, TIME_NS + 1)

    mounted(remounted, store)


def test_chmod_does_not_change_the_modification_time() -> None:
    store = store_with_file()
    mtime_ns = store.objects["f"].info.mtime_ns

    async def run(m: Mounted) -> None:
        f = await m.at("f")
        await m.namespace.set_attributes(f, AttributeChange(mode=0o600), defer=False)

    mounted(run, store)

    async def remounted(m: Mounted) -> None:
        assert (await m.namespace.attributes(await m.at("f"))).mtime_ns == mtime_ns

    mounted(remounted, store)


def test_what_is_stored_already_is_not_stored_again() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        change = AttributeChange(mode=0o600, uid=4)
        await m.namespace.set_attributes(f, change, defer=False)
        m.store.take_requests()
        await m.namespace.set_attributes(f, change, defer=False)
        await m.namespace.set_attributes(f, AttributeChange(), defer=False)
        assert m.store.take_requests() == {}

    mounted(run, store_with_file())


def test_chmod_of_a_listed_file_keeps_metadata_nobody_asked_for_before() -> None:
    async def run(m: Mounted) -> None:
        f = dict(await m.entries(m.root))["f"]
        assert f.metadata is None
        await m.namespace.set_attributes(f, AttributeChange(uid=9), defer=False)
        assert m.store.metadata("f")["origin"] == "elsewhere"
        assert decode(m.store.metadata("f")).mode == 0o100400

    mounted(run, store_with_file(origin="elsewhere", mode=str(0o100400)))


def test_a_failed_chmod_changes_nothing() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        before = m.namespace.attributes_known(f)
        m.store.fail("copy", StoreUnavailableError("503"))
        with pytest.raises(StoreUnavailableError):
            await m.namespace.set_attributes(f, AttributeChange(mode=0o600), defer=False)
        assert m.namespace.attributes_known(f) == before
        assert not f.metadata_dirty

    mounted(run, store_with_file())


def test_chmod_of_a_file_changed_by_others_applies_to_what_is_there_now() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        m.store.seed("f", b"newer", metadata={"uid": "77"})
        attributes = await m.namespace.set_attributes(f, AttributeChange(mode=0o600), defer=False)
        assert (attributes.mode, attributes.uid) == (0o100600, 77)
        assert m.store.content("f") == b"newer"
        assert m.changed == [f]

    mounted(run, store_with_file())


def test_chmod_of_a_file_deleted_by_others_is_told() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        m.store.erase("f")
        with pytest.raises(StaleInodeError):
            await m.namespace.set_attributes(f, AttributeChange(mode=0o600), defer=False)

    mounted(run, store_with_file())


def test_deferred_changes_go_with_the_next_upload() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        m.store.take_requests()
        change = AttributeChange(mode=0o600, mtime_ns=TIME_NS)
        attributes = await m.namespace.set_attributes(f, change, defer=True)
        assert (attributes.mode, attributes.mtime_ns) == (0o100600, TIME_NS)
        assert f.metadata_dirty
        assert m.store.take_requests() == {}
        m.clock.jump(61)
        assert (await m.namespace.attributes(f)).mode == 0o100600
        m.commit(f, b"1234567")
        assert not f.metadata_dirty
        stored = decode(m.store.metadata("f"))
        assert (stored.mode, stored.mtime_ns) == (0o100600, TIME_NS)

    mounted(run, store_with_file())


def test_attributes_changed_during_an_upload_are_not_taken_for_stored() -> None:
    async def run(m: Mounted) -> None:
        f = m.create(m.root, "new")
        metadata = m.namespace.commit_metadata(f, explicit_mtime_only=True)
        await m.namespace.set_attributes(f, AttributeChange(mode=0o600), defer=True)
        version = m.store.seed("new", b"x", metadata=metadata)
        m.namespace.note_commit(f, version, metadata)
        assert f.metadata_dirty
        await m.namespace.flush_attributes(f)
        assert not f.metadata_dirty
        assert decode(m.store.metadata("new")).mode == 0o100600

    mounted(run)


def test_an_upload_stores_times_only_where_asked_to() -> None:
    async def run(m: Mounted) -> None:
        f = m.create(m.root, "new")
        plain = m.namespace.commit_metadata(f, explicit_mtime_only=True)
        assert set(plain) == {"mode", "uid", "gid"}
        full = m.namespace.commit_metadata(f, explicit_mtime_only=False)
        assert set(full) == {"mode", "uid", "gid", "mtime", "atime", "ctime"}
        await m.namespace.set_attributes(f, AttributeChange(mtime_ns=TIME_NS), defer=True)
        assert "mtime" in m.namespace.commit_metadata(f, explicit_mtime_only=True)
        f.touch(TIME_NS + 1)
        assert "mtime" not in m.namespace.commit_metadata(f, explicit_mtime_only=True)

    mounted(run)


@pytest.mark.parametrize("keys", [["d/x"], ["d/"], ["d/", "d/x"]])
def test_a_directorys_attributes_are_kept_in_its_marker(keys: list[str]) -> None:
    store = FakeStore()
    for key in keys:
        store.seed(key)

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        change = AttributeChange(mode=0o711, uid=5)
        attributes = await m.namespace.set_attributes(d, change, defer=False)
        assert (attributes.mode, attributes.uid) == (stat.S_IFDIR | 0o711, 5)

    mounted(run, store)

    async def remounted(m: Mounted) -> None:
        attributes = await m.namespace.attributes(await m.at("d"))
        assert (attributes.mode, attributes.uid) == (stat.S_IFDIR | 0o711, 5)

    mounted(remounted, store)


def test_a_marker_with_content_keeps_it() -> None:
    store = FakeStore()
    store.seed("d/", b"somebody's notes")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.namespace.set_attributes(d, AttributeChange(mode=0o711), defer=False)
        assert m.store.content("d/") == b"somebody's notes"

    mounted(run, store)


def test_the_roots_attributes_change_in_memory_only() -> None:
    async def run(m: Mounted) -> None:
        attributes = await m.namespace.set_attributes(
            m.root, AttributeChange(mode=0o700), defer=False
        )
        assert attributes.mode == stat.S_IFDIR | 0o700
        assert m.store.take_requests() == {}

    mounted(run, prefix="p/")


def test_the_attributes_of_a_removed_open_file_change_in_memory() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        f.open_count = 1
        await m.namespace.unlink(m.root, "f")
        m.store.take_requests()
        change = AttributeChange(mode=0o600)
        attributes = await m.namespace.set_attributes(f, change, defer=False)
        assert (attributes.mode, attributes.nlink) == (0o100600, 0)
        assert m.store.take_requests() == {}

    mounted(run, store_with_file())


def test_user_attributes_are_stored_and_survive_a_remount() -> None:
    store = store_with_file(origin="elsewhere")

    async def run(m: Mounted) -> None:
        f = await m.at("f")
        await m.namespace.set_xattr(f, b"user.version", b"\x00\xff1")
        await m.namespace.set_xattr(f, b"user.other", b"")
        assert set(await m.namespace.list_xattrs(f)) == {b"user.version", b"user.other"}
        await m.namespace.remove_xattr(f, b"user.other")
        with pytest.raises(NoAttributeError):
            await m.namespace.remove_xattr(f, b"user.other")
        m.store.take_requests()
        await m.namespace.set_xattr(f, b"user.version", b"\x00\xff1")
        assert m.store.take_requests() == {}

    mounted(run, store)

    async def remounted(m: Mounted) -> None:
        f = dict(await m.entries(m.root))["f"]
        assert await m.namespace.list_xattrs(f) == [b"user.version"]
        assert await m.namespace.get_xattr(f, b"user.version") == b"\x00\xff1"
        with pytest.raises(NoAttributeError):
            await m.namespace.get_xattr(f, b"user.none")

    mounted(remounted, store)


def test_what_the_store_tells_can_be_read_but_not_set() -> None:
    async def run(m: Mounted) -> None:
        f = dict(await m.entries(m.root))["f"]
        m.store.take_requests()
        etag = m.store.objects["f"].info.etag.encode()
        assert await m.namespace.get_xattr(f, b"user.ossfs.etag") == etag
        assert m.store.take_requests() == {}
        assert await m.namespace.get_xattr(f, b"user.ossfs.content-type") == b"model/x"
        assert await m.namespace.get_xattr(f, b"user.ossfs.storage-class") == b"STANDARD"
        assert await m.namespace.get_xattr(f, b"user.ossfs.owner") == b"somebody"
        for name in (b"user.ossfs.version-id", b"user.ossfs.nonsense"):
            with pytest.raises(NoAttributeError):
                await m.namespace.get_xattr(f, name)
        with pytest.raises(NotPermittedError):
            await m.namespace.set_xattr(f, b"user.ossfs.etag", b"x")
        assert await m.namespace.list_xattrs(f) == []

    mounted(run, store_with_file())


def test_other_attributes_are_refused_without_a_request() -> None:
    async def run(m: Mounted) -> None:
        f = dict(await m.entries(m.root))["f"]
        m.store.take_requests()
        for name, error in (
            (b"security.capability", NoAttributeError),
            (b"user\xff", NoAttributeError),
            (b"user.\xff", NoAttributeError),
            (b"trusted.x", NoAttributeError),
            (b"security.selinux", OperationUnsupportedError),
            (b"system.posix_acl_access", OperationUnsupportedError),
            (b"system.posix_acl_default", OperationUnsupportedError),
        ):
            with pytest.raises(error):
                await m.namespace.get_xattr(f, name)
            with pytest.raises(OperationUnsupportedError):
                await m.namespace.set_xattr(f, name, b"x")
            with pytest.raises(OperationUnsupportedError):
                await m.namespace.remove_xattr(f, name)
        assert m.store.take_requests() == {}

    mounted(run, store_with_file())


def test_attributes_that_do_not_fit_are_refused_and_forgotten() -> None:
    async def run(m: Mounted) -> None:
        f = m.create(m.root, "new")
        for defer in (True, False):
            with pytest.raises(RangeTooLargeError):
                await m.namespace.set_xattr(f, b"user.k", b"x" * 3000, defer=defer)
        assert await m.namespace.list_xattrs(f) == []
        await m.namespace.set_xattr(f, b"user.k", b"v", defer=True)
        m.commit(f, b"1")
        assert decode(m.store.metadata("new")).xattrs == {"user.k": b"v"}

    mounted(run)


def test_the_kernel_may_keep_attributes_as_long_as_they_are_fresh() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        assert m.namespace.fresh_seconds(f, trio.current_time()) == 60
        m.clock.jump(45)
        assert m.namespace.fresh_seconds(f, trio.current_time()) == 15
        m.clock.jump(45)
        assert m.namespace.fresh_seconds(f, trio.current_time()) == 0
        assert m.namespace.fresh_seconds(m.root, trio.current_time()) == 60
        m.namespace.invalidate(f)
        assert m.namespace.attributes_nowait(f) is None

    mounted(run, store_with_file())


def test_a_never_stored_file_has_no_version_to_read() -> None:
    async def run(m: Mounted) -> None:
        with pytest.raises(NoSuchEntryError):
            await m.namespace.refresh_version(m.create(m.root, "new"))

    mounted(run)
