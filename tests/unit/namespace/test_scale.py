"""Directories and buckets far larger than what is kept of them: memory is known and bounded.

``make scale`` takes a directory of 1,000,000 objects and a bucket of 10,000,000 keys (minutes).
"""

import gc
import os
import threading
import tracemalloc

import pytest

from ossfs_py.namespace.namespace import Inode, Kind
from tests.support.endless_store import EndlessStore, TreeKeys
from tests.support.namespaces import Mounted, mounted

FULL = "OSSFS_PY_SCALE" in os.environ
DIRECTORY_FILES = 1_000_000 if FULL else 12_000
FAN_OUTS = (1_000, 100, 100) if FULL else (2, 100, 100)
KEPT = 5_000
"""``max_entries`` of these mounts."""
INODE_BYTES = 1_000
"""Upper bound of what an inode costs with its object, names and places in tables; 670 here."""
TABLE_BYTES = 100
"""Room of a forgotten inode in two tables, which shrink only when they next grow; 66 here."""
PATIENCE_SECONDS = 120.0
WAY_DOWN = 10
"""Directories that are known on top of that because something below them is."""
STREAM_BYTES = 16 * 1024**2
"""What handing out any number of entries may take on top, for ``KEPT`` inodes and some pages."""


async def read(m: Mounted, directory: Inode) -> list[Inode]:
    """A directory's entries, as a program that reads the whole of it sees them."""
    found: list[Inode] = []
    handle = m.namespace.list_directory(directory)
    offset = 0
    while batch := await handle.entries_from(offset):
        found += [inode for _next, _name, inode in batch]
        offset = batch[-1][0]
    return found


async def stream(m: Mounted, directory: Inode) -> int:
    """How many entries a directory has; nothing is kept of them."""
    count = offset = 0
    handle = m.namespace.list_directory(directory)
    while batch := await handle.entries_from(offset):
        count += len(batch)
        offset = batch[-1][0]
    return count


@pytest.mark.parametrize("step", [1, 7])
def test_the_first_entries_of_ten_million_come_with_the_first_page(step: int) -> None:
    store = EndlessStore(TreeKeys(10_000_000, step=step))
    shown = threading.Event()

    def after_the_first(_method: str, _key: str) -> None:
        if store.requests["list_page"] > 1:
            assert shown.wait(PATIENCE_SECONDS)

    store.on_request = after_the_first

    async def run(m: Mounted) -> None:
        assert await m.namespace.list_directory(m.root).entries_from(0)
        shown.set()

    mounted(run, store)


def test_a_huge_directory_streams_in_bounded_memory() -> None:
    store = EndlessStore(TreeKeys(DIRECTORY_FILES))

    async def run(m: Mounted) -> None:
        tracemalloc.start()
        try:
            assert await stream(m, m.root) == DIRECTORY_FILES
            assert tracemalloc.get_traced_memory()[1] < STREAM_BYTES
        finally:
            tracemalloc.stop()
        assert len(m.namespace._tree.table) <= KEPT + 1
        pages = -(-DIRECTORY_FILES // 1000)
        # Some are requested behind the end, as nobody knows where that is.
        assert pages <= m.store.take_requests()["list_page"] <= pages * 1.1 + 4

    mounted(run, store, max_entries=KEPT)


def test_an_inode_of_the_kernel_costs_under_a_kilobyte_and_little_once_forgotten() -> None:
    store = EndlessStore(TreeKeys(DIRECTORY_FILES))

    async def run(m: Mounted) -> None:
        for inode in await read(m, m.root):
            m.namespace.remember(inode)
        for number in [inode.number for inode in m.root.children.values()]:
            m.namespace.forget(number, 1)
        assert len(m.namespace._tree.table) <= KEPT + 1
        gc.collect()
        tracemalloc.start()
        try:
            numbers = []
            handle = m.namespace.list_directory(m.root)
            while batch := await handle.entries_from(len(numbers)):
                for _next, _name, inode in batch:
                    m.namespace.remember(inode)
                    numbers.append(inode.number)
            del handle, batch, inode
            gc.collect()
            known = tracemalloc.get_traced_memory()[0]
            assert known / DIRECTORY_FILES < INODE_BYTES
            assert len(m.namespace._tree.table) > DIRECTORY_FILES
            while numbers:
                m.namespace.forget(numbers.pop(), 1)
            gc.collect()
            assert len(m.namespace._tree.table) <= KEPT + 1
            left = tracemalloc.get_traced_memory()[0]
            assert left < 3 * KEPT * INODE_BYTES + DIRECTORY_FILES * TABLE_BYTES
        finally:
            tracemalloc.stop()

    mounted(run, store, max_entries=KEPT)


def test_a_walk_over_a_huge_bucket_keeps_a_bounded_part_of_it() -> None:
    keys = TreeKeys(*FAN_OUTS)

    async def run(m: Mounted) -> None:
        files = most_known = 0
        to_visit = [m.root]
        while to_visit:
            found = await read(m, to_visit.pop())
            if found[0].kind is Kind.DIRECTORY:
                to_visit += reversed(found)
            else:
                files += len(found)
            most_known = max(most_known, len(m.namespace._tree.table))
        assert files == len(keys)
        assert most_known <= KEPT + WAY_DOWN
        # A flat LIST each thousand keys, two pages read for nothing and one of its own for each
        # directory of directories.
        assert m.store.requests["list_page"] < 2 * len(keys) / 1000

    mounted(run, EndlessStore(keys), max_entries=KEPT)
