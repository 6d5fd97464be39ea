"""What an inode is: its number, when another one takes its name, and who is told."""

import stat

import pytest

from ossfs_py.errors import (
    DirectoryNotEmptyError,
    NoSuchEntryError,
    NotPermittedError,
    StaleInodeError,
)
from ossfs_py.model import AttributeChange
from ossfs_py.namespace.inode import InodeTable, Kind
from ossfs_py.namespace.numbers import hash_of
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

# -- numbers ------------------------------------------------------------------------------------


def numbers_of(prefix: str, paths: list[str]) -> dict[str, int]:
    table = InodeTable(200_000, prefix)
    found = {}
    for path in paths:
        node = table.root
        names = path.split("/")
        for name in names[:-1]:
            node = table.child(node, name) or table.new(node, name, Kind.DIRECTORY)
        found[prefix + path] = table.new(node, names[-1], Kind.FILE).number
    return found


def test_numbers_are_those_of_the_keys_in_whatever_order_they_are_met() -> None:
    paths = [f"d{n % 317}/{'模' * (n % 3)}f{n}" for n in range(100_000)]
    numbers = numbers_of("", paths)
    assert numbers_of("", paths[::-1]) == numbers
    assert len(set(numbers.values())) == len(paths)
    assert all(1 < number < 2**63 for number in numbers.values())


def test_a_mount_of_a_part_of_the_bucket_has_the_numbers_of_the_whole() -> None:
    assert numbers_of("a/b/", ["c/d", "e"]) == numbers_of("", ["a/b/c/d", "a/b/e"])


def test_keys_whose_numbers_are_the_same_have_one_each() -> None:
    def colliding(seed: int, name: str, step: int) -> int:
        return hash_of(seed, "all the same", step)

    table = InodeTable(100, hash_name=colliding)
    inodes = [table.new(table.root, name, Kind.FILE) for name in "abcd"]
    assert len({inode.number for inode in inodes}) == 4
    for name, inode in zip("abcd", inodes, strict=True):
        assert table.get(inode.number) is inode
        assert table.child(table.root, name) is inode
    # A handle of any but the first could be the one of another file after a remount.
    again = InodeTable(100, hash_name=colliding)
    others = [again.new(again.root, name, Kind.FILE) for name in "abcd"]
    same = [table.generation(a) == again.generation(b) for a, b in zip(inodes, others, strict=True)]
    assert same == [True, False, False, False]


def test_a_directory_that_was_renamed_numbers_what_comes_as_its_new_place_does() -> None:
    table = InodeTable(100)
    old = table.new(table.root, "old", Kind.DIRECTORY)
    table.new(old, "before", Kind.FILE)
    table.move(old, table.root, "new")
    assert table.new(old, "after", Kind.FILE).number == numbers_of("", ["new/after"])["new/after"]


def test_a_number_is_not_given_again_before_the_kernel_has_forgotten_it() -> None:
    table = InodeTable(100)
    first = table.new(table.root, "f", Kind.FILE)
    table.remember(first)
    table.detach(first)
    second = table.new(table.root, "f", Kind.FILE)
    assert second.number != first.number
    assert table.generation(second) != table.generation(first)
    table.detach(second)
    table.forget(first.number, 1)
    third = table.new(table.root, "f", Kind.FILE)
    assert third.number == first.number
    assert table.generation(third) == table.generation(first)


def test_a_handle_never_leads_to_the_other_one_of_two_keys_of_one_number() -> None:
    """These two names really have one number: xxh3 is no cryptographic hash."""
    known = {}
    for names in (("4rb2sv2u", "142q30gJ"), ("142q30gJ", "4rb2sv2u")):
        table = InodeTable(100)
        for name in names:
            inode = table.new(table.root, name, Kind.FILE)
            handle = inode.number, table.generation(inode)
            assert known.setdefault(handle, name) == name
    assert len({number for number, _generation in known}) == 3


def test_an_inode_made_again_before_the_kernel_heard_of_it_takes_its_references() -> None:
    table = InodeTable(1)
    first = table.new(table.root, "f", Kind.FILE)
    table.new(table.root, "g", Kind.FILE)
    assert table.child(table.root, "f") is None
    again = table.new(table.root, "f", Kind.FILE)
    assert again is not first
    table.remember(first)
    assert again.lookup_count == 1
    table.forget(first.number, 1)
    assert again.lookup_count == 0


# -- others replace and delete -------------------------------------------------------------------


def test_a_file_replaced_while_it_is_read_is_another_inode_and_the_old_one_keeps_its_size() -> None:
    async def run(m: Mounted) -> None:
        old = await m.at("f")
        m.namespace.remember(old)
        old.open_count, old.settled = 1, True
        m.store.seed("f", b"another")
        m.clock.jump(61)
        new = await m.at("f")
        assert new is not old
        assert new.number != old.number
        assert (new.size, old.size) == (7, 1)
        assert m.taken == [(m.root, "f", old)]
        assert old.stale
        assert (await m.namespace.attributes(old)).size == 1
        assert (await m.namespace.attributes(old)).nlink == 0
        with pytest.raises(StaleInodeError):
            m.namespace.inode(old.number)
        assert m.namespace.inode_or_stale(old.number) is old
        old.open_count = 0
        with pytest.raises(StaleInodeError):
            m.namespace.inode_or_stale(old.number)

    mounted(run, store_with("f"))


def test_a_file_replaced_before_anybody_was_given_a_byte_stays_the_same_inode() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        f.open_count = 1
        m.store.seed("f", b"another")
        m.clock.jump(61)
        assert await m.at("f") is f
        assert f.size == 7
        assert m.changed == [f]
        assert m.taken == []

    mounted(run, store_with("f"))


def test_a_listing_that_shows_another_version_is_enough() -> None:
    async def run(m: Mounted) -> None:
        old = await m.at("d/f")
        old.open_count, old.settled = 1, True
        m.store.seed("d/f", b"another")
        m.clock.jump(61)
        entries = dict(await m.entries(await m.at("d")))
        assert entries["f"] is not old
        assert (entries["f"].size, old.size) == (7, 1)

    mounted(run, store_with("d/f"))


def test_a_version_that_the_store_refused_makes_the_next_look_ask() -> None:
    async def run(m: Mounted) -> None:
        old = await m.at("f")
        old.open_count, old.settled = 1, True
        m.store.seed("f", b"another")
        m.namespace.note_outdated(old)
        assert m.taken == [(m.root, "f", old)]
        m.store.take_requests()
        assert (await m.at("f")).size == 7
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, store_with("f"))


def test_what_is_written_here_keeps_its_name_whatever_others_do() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        f.open_count, f.settled, f.size_source = 1, True, lambda: 99
        before = f.info
        m.store.seed("f", b"another")
        m.clock.jump(61)
        assert await m.at("f") is f
        assert f.info == before  # what the writer has seen, for the condition of its commit
        m.store.erase("f")
        m.clock.jump(61)
        assert await m.at("f") is f
        m.store.seed("f/below", b"a directory now")
        m.clock.jump(61)
        assert await m.at("f") is f
        assert m.taken == []

    mounted(run, store_with("f"))


def test_a_call_about_a_deleted_file_is_told_to_look_again_and_the_name_is_free() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        m.namespace.remember(f)
        m.store.erase("f")
        change = AttributeChange(mtime_ns=1)
        with pytest.raises(StaleInodeError):
            await m.namespace.set_attributes(f, change, defer=False)
        assert m.taken == [(m.root, "f", f)]
        with pytest.raises(StaleInodeError):
            m.namespace.inode(f.number)
        with pytest.raises(NoSuchEntryError):
            await m.at("f")
        made = m.create(m.root, "f")
        m.commit(made, b"precious")
        assert await m.at("f") is made
        assert m.store.content("f") == b"precious"

    mounted(run, store_with("f"))


def test_a_file_that_others_make_anew_is_seen_at_the_next_look() -> None:
    async def run(m: Mounted) -> None:
        f = await m.at("f")
        m.store.erase("f")
        with pytest.raises(StaleInodeError):
            await m.namespace.set_attributes(f, AttributeChange(mode=0o600), defer=False)
        m.store.seed("f", b"made anew")
        assert (await m.at("f")).size == 9

    mounted(run, store_with("f"))


def test_a_symlink_that_turns_out_to_be_one_stays_in_the_listing() -> None:
    store = FakeStore()
    store.seed("d/link", b"target", metadata={"mode": "41471"})

    async def run(m: Mounted) -> None:
        directory = await m.at("d")
        (_name, file), *_ = await m.entries(directory)
        assert file.kind is Kind.FILE
        with pytest.raises(StaleInodeError):
            await m.namespace.ensure_metadata(file)
        assert await m.names(directory) == ["link"]
        link = await m.at("d/link")
        assert link.kind is Kind.SYMLINK
        assert await m.namespace.read_link(link) == b"target"
        assert m.taken == [(directory, "link", file)]

    mounted(run, store)


def test_a_directory_made_again_shows_nothing_of_its_former_life() -> None:
    async def run(m: Mounted) -> None:
        directory = await m.at("d/sub")
        assert await m.names(directory) == ["f"]
        m.store.erase("d/sub/f")
        m.clock.jump(61)
        with pytest.raises(NoSuchEntryError):
            await m.at("d")
        m.store.seed("d/sub/g", b"1")
        again = await m.at("d/sub")
        assert again.number == directory.number
        assert await m.names(again) == ["g"]

    mounted(run, store_with("d/sub/f"))


# -- a directory's time and links ----------------------------------------------------------------


@pytest.mark.parametrize("marked", [False, True])
def test_a_directorys_time_moves_when_a_listing_shows_what_others_did(marked: bool) -> None:
    store = store_with("d/a", "d/b", *(["d/"] if marked else []))

    async def run(m: Mounted) -> None:
        directory = await m.at("d")
        await m.names(directory)
        steps = (
            lambda: m.store.seed("d/c", b"new"),
            lambda: m.store.seed("d/a", b"changed"),
            lambda: m.store.erase("d/b"),
            lambda: m.store.seed("d/sub/x", b"a directory"),
        )
        for step in steps:
            before = (await m.namespace.attributes(directory)).mtime_ns
            m.attributes_changed.clear()
            step()
            m.clock.jump(61)
            await m.names(directory)
            assert (await m.namespace.attributes(directory)).mtime_ns > before
            assert directory in m.attributes_changed
            # Nothing has happened since.
            moved = (await m.namespace.attributes(directory)).mtime_ns
            m.clock.jump(61)
            await m.names(directory)
            assert (await m.namespace.attributes(directory)).mtime_ns == moved

    mounted(run, store)


def test_what_this_mount_did_itself_does_not_move_the_time_again() -> None:
    async def run(m: Mounted) -> None:
        directory = await m.at("d")
        await m.names(directory)
        m.commit(m.create(directory, "new"), b"12")
        await m.namespace.unlink(directory, "a")
        moved = (await m.namespace.attributes(directory)).mtime_ns
        m.clock.jump(61)
        assert await m.names(directory) == ["b", "new"]
        assert (await m.namespace.attributes(directory)).mtime_ns == moved

    mounted(run, store_with("d/a", "d/b"))


def test_a_directory_counts_its_subdirectories_once_it_was_listed() -> None:
    async def run(m: Mounted) -> None:
        directory = await m.at("d")
        assert (await m.namespace.attributes(directory)).nlink == 1
        await m.names(directory)
        assert (await m.namespace.attributes(directory)).nlink == 4
        await m.namespace.make_directory(directory, "three", 0o755, 0, 0)
        assert (await m.namespace.attributes(directory)).nlink == 5
        m.create(directory, "file")
        await m.namespace.remove_directory(directory, "three")
        assert (await m.namespace.attributes(directory)).nlink == 4

    mounted(run, store_with("d/one/f", "d/two/f", "d/f"))


# -- directories that cannot be removed ----------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("d/", "its marker object has content"),
        ("d//b", "keys that no path can name, such as 'd//'"),
    ],
)
def test_why_a_directory_that_looks_empty_stays_is_told(
    key: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    store.seed(key, b"content")

    async def run(m: Mounted) -> None:
        await m.at("d")
        with pytest.raises(DirectoryNotEmptyError):
            await m.namespace.remove_directory(m.root, "d")

    mounted(run, store)
    assert store.keys() == [key]
    assert hint in caplog.text


@pytest.mark.parametrize("kind", [Kind.FIFO, Kind.SOCKET])
def test_fifos_and_sockets_are_seen_again_after_a_remount(kind: Kind) -> None:
    store = FakeStore()
    bits = {Kind.FIFO: stat.S_IFIFO, Kind.SOCKET: stat.S_IFSOCK}[kind]

    async def make(m: Mounted) -> None:
        made = await m.namespace.make_special(m.root, "node", bits | 0o640, 7, 8)
        assert made.kind is kind
        with pytest.raises(NotPermittedError):
            await m.namespace.make_special(m.root, "device", stat.S_IFBLK | 0o640, 7, 8)

    async def look(m: Mounted) -> None:
        node = await m.at("node")
        assert node.kind is kind
        assert (await m.namespace.attributes(node)).mode == bits | 0o640
        assert [inode.kind for _name, inode in await m.entries(m.root)] == [kind]

    mounted(make, store)
    mounted(look, store)
    assert store.keys() == ["node"]


def store_with(*keys: str) -> FakeStore:
    store = FakeStore()
    for key in keys:
        store.seed(key, b"" if key.endswith("/") else b"1")
    return store
