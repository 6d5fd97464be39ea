"""Taking disk space back from files nobody has open. Everything here needs the ledger's lock."""

import fcntl
import os
import random
from collections.abc import Iterable

from ossfs_py.datapath.diskcache.blockfile import (
    FILE_FLAGS,
    BlockFile,
    allocated_bytes,
    remove_plain,
)
from ossfs_py.datapath.diskcache.eviction import Candidate, eviction_order
from ossfs_py.datapath.diskcache.root import CacheRoot

_SAMPLE_FILES = 2000
"""Looked at before choosing: some 10 ms. With more files than that, the oldest of a random sample
are close enough to the oldest of all."""

_BATCH_FILES = 500
"""Removed at most beyond what is needed now: some 50 ms, while others wait for the lock."""

_TRIM_FACTOR = 2
"""A file this many times larger than what is wanted gives up its tail only: the head of a model
is what its next load asks for first, while the tail is fetched."""


def candidates(root: CacheRoot, shelves: Iterable[str]) -> list[Candidate]:
    """The block files of some shelves as stat(2) shows them."""
    return [
        Candidate(shelf, name, taken, info.st_mtime_ns, info.st_atime_ns)
        for shelf in shelves
        for name, info, taken in root.files(shelf)
    ]


def evict(root: CacheRoot, wanted_bytes: int, batch_bytes: int) -> tuple[int | None, int]:
    """Free at least ``wanted_bytes`` if files that are not open allow it, and while at it
    ``batch_bytes`` if that takes few files.

    Returns what all files took before (None if not all were looked at) and the bytes freed.

    Raises:
        OSError: the directory cannot be used.
    """
    shelves = root.shelves()
    random.shuffle(shelves)
    freed = seen = 0
    while shelves and freed < wanted_bytes:
        sample: list[Candidate] = []
        while shelves and len(sample) < _SAMPLE_FILES:
            sample += candidates(root, [shelves.pop()])
        seen += sum(c.allocated_bytes for c in sample)
        for number, candidate in enumerate(eviction_order(sample)):
            target = wanted_bytes if number >= _BATCH_FILES else max(wanted_bytes, batch_bytes)
            if freed >= target:
                break
            freed += evict_file(root, candidate, target - freed)
    return None if shelves else seen, freed


def evict_file(root: CacheRoot, candidate: Candidate, wanted_bytes: int | None = None) -> int:
    """Remove one file, or only its tail if ``wanted_bytes`` is much less than it takes.

    Returns the bytes freed: 0 if it is open, or was used since it was looked at.

    Raises:
        OSError: the directory cannot be used.
    """
    path = f"{candidate.shelf}/{candidate.name}"
    try:
        fd = os.open(path, FILE_FLAGS, dir_fd=root.fd)
    except FileNotFoundError:
        return remove_plain(root.fd, candidate.shelf, candidate.name)  # nobody finds it any more
    file = None
    try:
        if os.fstat(fd).st_mtime_ns != candidate.last_use_ns:
            # Not even a short lock: a process that opens the file now would find it locked.
            return 0
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        info = os.fstat(fd)
        if info.st_nlink == 0 or info.st_mtime_ns != candidate.last_use_ns:
            return 0
        if wanted_bytes is not None and candidate.allocated_bytes >= _TRIM_FACTOR * wanted_bytes:
            file = BlockFile.inspect(root.fd, fd, candidate.name)
        if (
            file is not None
            and wanted_bytes is not None
            and not file.was_sealed
            and (first := _first_to_go(file, wanted_bytes))
        ):
            before = file.allocated_bytes()
            file.trim(first)
            os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
            return before - file.allocated_bytes()
        # Nobody else holds the file but for a look at its lock: the space comes back with
        # our close. Truncating first would wait for every dirty page to be written (1.3 ms
        # for a small file on ext4).
        taken = allocated_bytes(fd)
        os.unlink(path, dir_fd=root.fd)
        return taken + remove_plain(root.fd, candidate.shelf, candidate.name)
    except BlockingIOError:
        return 0
    finally:
        if file is None:
            os.close(fd)
        else:
            file.close()


def _first_to_go(file: BlockFile, wanted_bytes: int) -> int:
    index = file.identity.block_count
    while index > 0 and wanted_bytes > 0:
        index -= 1
        if file.records[index]:
            start, end = file.identity.span(index, index + 1)
            wanted_bytes -= end - start
    return index
