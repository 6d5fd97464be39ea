"""Names, keys and the mount's prefix."""

import pytest

from ossfs_py.errors import (
    IllegalNameError,
    InvalidArgumentError,
    NameTooLongError,
    NoSuchEntryError,
    NotPermittedError,
)
from ossfs_py.namespace import names
from ossfs_py.namespace.inode import InodeTable, Kind
from ossfs_py.namespace.keys import KeyMap, require_key
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted


def test_names_that_are_not_utf8_are_illegal() -> None:
    assert names.decode("Modell-ä-模型".encode()) == "Modell-ä-模型"
    with pytest.raises(IllegalNameError):
        names.decode(b"\xff\xfe")


def test_a_name_has_at_most_255_bytes() -> None:
    assert names.decode(b"a" * 255) == "a" * 255
    with pytest.raises(NameTooLongError):
        names.decode(b"a" * 256)
    assert names.is_nameable("ä" * 127)
    assert not names.is_nameable("ä" * 128)
    with pytest.raises(NameTooLongError):
        names.require_nameable("ä" * 128)


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "a/b"])
def test_what_no_path_can_name_is_not_nameable(name: str) -> None:
    assert not names.is_nameable(name)
    with pytest.raises(InvalidArgumentError):
        names.require_nameable(name)


def test_keys_follow_the_path_below_the_prefix() -> None:
    table = InodeTable(10)
    keys = KeyMap("team/models/")
    directory = table.new(table.root, "a", Kind.DIRECTORY)
    file = table.new(directory, "b", Kind.FILE)
    assert keys.marker_key_of(table.root) == "team/models/"
    assert keys.marker_key_of(directory) == "team/models/a/"
    assert keys.key_of(file) == "team/models/a/b"
    assert keys.child_key(table.root, "c") == "team/models/c"
    with pytest.raises(ValueError, match="slash"):
        KeyMap("team")


def test_a_key_has_at_most_1024_bytes_prefix_included() -> None:
    assert require_key("k" * 1024)
    with pytest.raises(NameTooLongError):
        require_key("ü" * 513)

    async def run(m: Mounted) -> None:
        parent = m.root
        for segment in "abc":
            parent = await m.namespace.make_directory(parent, segment * 255, 0o755, 0, 0)
        m.store.take_requests()
        with pytest.raises(NameTooLongError):
            m.create(parent, "x" * 255)
        with pytest.raises(NameTooLongError):
            await m.namespace.lookup(parent, "x" * 255)
        # A directory's marker ends with a slash, which is one byte more.
        fits = "x" * (1024 - 200 - 1 - 3 * 256)
        with pytest.raises(NameTooLongError):
            await m.namespace.make_directory(parent, fits, 0o755, 0, 0)
        assert m.store.take_requests() == {}
        with pytest.raises(NoSuchEntryError):
            await m.namespace.lookup(parent, fits)
        assert m.store.take_requests() == {"head": 1}
        assert m.create(parent, fits).name == fits

    mounted(run, prefix="p" * 200 + "/")


def test_prefix_mount_sees_and_writes_only_below_its_prefix() -> None:
    store = FakeStore()
    store.seed("other/x")
    store.seed("team/y", b"y")
    store.seed("team-2/z")

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == ["y"]
        with pytest.raises(NoSuchEntryError):
            await m.at("other")
        await m.namespace.make_directory(m.root, "d", 0o755, 0, 0)
        assert "team/d/" in m.store.objects
        await m.namespace.unlink(m.root, "y")
        assert all(key.startswith("team/") for _method, key in m.store.log)

    mounted(run, store, prefix="team/")


def test_the_mounts_own_scratch_names_are_hidden_at_the_root_only() -> None:
    store = FakeStore()
    store.seed("p/.ossfs-py-deleted-1", b"x")
    store.seed("p/d/.ossfs-py-mine", b"x")

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == ["d"]
        assert await m.names(await m.at("d")) == [".ossfs-py-mine"]
        with pytest.raises(NoSuchEntryError):
            await m.at(".ossfs-py-deleted-1")
        with pytest.raises(NotPermittedError):
            m.create(m.root, ".ossfs-py-x")

    mounted(run, store, prefix="p/")
