"""The inode table: numbers, references, bounds."""

import pytest

from ossfs_py.errors import StaleInodeError
from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.inode import Inode, InodeTable, Kind

SECOND = 1_000_000_000


def test_an_inode_is_known_until_it_is_forgotten_and_displaced() -> None:
    table = InodeTable(0)
    inode = Inode(99, table.root, "x", Kind.FILE)
    table.remember(inode, 2)
    assert table.get(99) is inode
    table.forget(99, 1)
    assert table.get(99) is inode
    table.forget(99, 1)
    with pytest.raises(StaleInodeError):
        table.get(99)
    assert table.root.children == {}


def test_unreferenced_inodes_are_bounded_and_the_oldest_goes_first() -> None:
    table = InodeTable(100)
    for number in range(10_000):
        table.new(table.root, str(number), Kind.FILE)
    assert len(table) == 101
    assert table.child(table.root, "9999") is not None
    assert table.child(table.root, "9899") is None


def test_numbers_are_never_reused() -> None:
    table = InodeTable(1)
    numbers = [table.new(table.root, str(n), Kind.FILE).number for n in range(100)]
    assert len(set(numbers)) == 100


def test_open_local_and_parent_inodes_are_not_displaced() -> None:
    table = InodeTable(1)
    directory = table.new(table.root, "d", Kind.DIRECTORY)
    opened = table.new(directory, "open", Kind.FILE)
    opened.open_count = 1
    local = table.new(table.root, "local", Kind.FILE)
    local.local = True
    for number in range(1000):
        table.new(table.root, f"f{number}", Kind.FILE)
    for inode in (directory, opened, local):
        assert table.get(inode.number) is inode
    assert len(table) < 10


def test_deep_chains_of_unreferenced_directories_are_given_up_from_below() -> None:
    table = InodeTable(10)
    node = table.root
    for depth in range(1000):
        node = table.new(node, str(depth), Kind.DIRECTORY)
    for number in range(3000):
        table.new(table.root, f"f{number}", Kind.FILE)
    assert len(table) < 50


def test_forget_never_raises() -> None:
    table = InodeTable(10)
    table.forget(12345, 1)
    table.forget(1, 1)
    inode = table.new(table.root, "x", Kind.FILE)
    table.remember(inode)
    table.forget(inode.number, 5)
    assert inode.lookup_count == 0
    assert table.get(1) is table.root


def test_a_removed_inode_lives_as_long_as_the_kernel_remembers_it() -> None:
    table = InodeTable(10)
    inode = table.new(table.root, "x", Kind.FILE)
    table.remember(inode)
    table.detach(inode)
    assert table.child(table.root, "x") is None
    assert table.get(inode.number) is inode
    table.forget(inode.number, 1)
    with pytest.raises(StaleInodeError):
        table.get(inode.number)


def test_an_inode_displaced_before_the_kernel_heard_of_it_is_known_again() -> None:
    table = InodeTable(2)
    directory = table.new(table.root, "d", Kind.DIRECTORY)
    inode = table.new(directory, "x", Kind.FILE)
    for number in range(50):
        table.new(table.root, f"f{number}", Kind.FILE)
    with pytest.raises(StaleInodeError):
        table.get(inode.number)
    table.remember(inode)
    assert table.get(inode.number) is inode
    assert table.child(directory, "x") is inode
    assert table.child(table.root, "d") is directory
    assert table.get(directory.number) is directory


def test_directories_displaced_while_they_are_read_are_displaced_again() -> None:
    table = InodeTable(10)
    directories = [table.new(table.root, f"d{number}", Kind.DIRECTORY) for number in range(1000)]
    for directory in directories:
        for number in range(20):
            table.new(directory, str(number), Kind.FILE)
    assert len(table) < 20


def info(etag: str, mtime_ns: int, metadata: dict[str, str] | None = None) -> ObjectInfo:
    return ObjectInfo("k", 3, etag, mtime_ns, metadata)


def test_list_and_head_answers_of_one_version_complete_each_other() -> None:
    inode = Inode(2, None, "k", Kind.FILE)
    assert not inode.learn(info("e", 5 * SECOND, {"mode": "33152"}))
    assert not inode.learn(info("e", 5 * SECOND + 123_000_000))
    assert inode.decoded.mode == 33152
    assert inode.info is not None
    assert inode.info.mtime_ns == 5 * SECOND


def test_the_same_bytes_written_again_later_bring_other_metadata() -> None:
    inode = Inode(2, None, "k", Kind.FILE)
    inode.learn(info("e", 5 * SECOND, {"mode": "33152"}))
    inode.mode = 0o600
    assert not inode.learn(info("e", 6 * SECOND))
    assert inode.metadata is None
    assert inode.mode is None


def test_another_etag_or_size_is_another_content() -> None:
    inode = Inode(2, None, "k", Kind.FILE)
    inode.learn(info("e", 5 * SECOND))
    assert inode.learn(info("f", 5 * SECOND))
    assert inode.learn(ObjectInfo("k", 4, "f", 5 * SECOND))


def test_changes_not_stored_yet_survive_what_the_store_says() -> None:
    inode = Inode(2, None, "k", Kind.FILE)
    inode.learn(info("e", 5 * SECOND, {}))
    inode.mode, inode.metadata_dirty = 0o600, True
    inode.learn(info("f", 9 * SECOND, {"mode": "33188"}))
    assert inode.mode == 0o600
