"""Random operations on files of a mount, compared with bytes in memory after every step.

After the manner of fsx: each operation is followed through on a model, whatever is read is compared
with it, and every so often the object is fetched through another client and compared as well.
"""

import collections
import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path

KIB = 1024
HISTORY = 40
"""Operations told when something does not match."""
CHECK_STEPS = 500
"""How often the store is asked for what it has."""

Fetch = Callable[[str], bytes]
"""Content of the object behind a file name."""


class MismatchError(AssertionError):
    """The mount or the store disagrees with the model."""


class ExercisedFile:
    """One file, its open descriptor and what it must hold."""

    def __init__(self, directory: Path, name: str, limit: int, rng: random.Random) -> None:
        self.directory = directory
        self.name = name
        self.limit = limit
        self.model = bytearray()
        self.history: collections.deque[str] = collections.deque(maxlen=HISTORY)
        self._rng = rng
        self._renames = 0
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)

    @property
    def path(self) -> Path:
        """Where the file is now."""
        return self.directory / self.name

    def step(self) -> None:
        """One operation."""
        names, weights = zip(*_OPERATIONS.items(), strict=True)
        name = self._rng.choices(names, weights)[0]
        getattr(self, name)()

    # -- operations ------------------------------------------------------------------------------

    def write(self) -> None:
        offset, size = self._span(self.limit)
        self._note("write", offset, size)
        data = self._rng.randbytes(size)
        assert os.pwrite(self._fd, data, offset) == size
        self._set(offset, data)

    def write_in_order(self) -> None:
        """Some writes that continue one another, as most programs write."""
        self._note("rewrite in order", 0, 0)
        os.ftruncate(self._fd, 0)
        self.model.clear()
        total = self._rng.randrange(self.limit)
        while len(self.model) < total:
            data = self._rng.randbytes(self._rng.randrange(1, max(2, self.limit // 4)))
            assert os.pwrite(self._fd, data, len(self.model)) == len(data)
            self.model += data

    def write_only(self) -> None:
        """Write through a descriptor that keeps no pages, alone at first, then beside a reader."""
        os.close(self._fd)
        writer = os.open(self.path, os.O_WRONLY)
        self._write_through(writer)
        self._fd = os.open(self.path, os.O_RDWR)
        self._check_size()
        self.read()
        self._write_through(writer)
        self.read()
        self.map_read()
        os.close(writer)

    def _write_through(self, fd: int) -> None:
        offset, size = self._span(self.limit)
        self._note("write through a descriptor for writing only", offset, size)
        data = self._rng.randbytes(size)
        assert os.pwrite(fd, data, offset) == size
        self._set(offset, data)

    def append(self) -> None:
        size = self._rng.randrange(1, 64 * KIB)
        if len(self.model) + size > self.limit:
            return
        self._note("append", len(self.model), size)
        data = self._rng.randbytes(size)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            assert os.write(fd, data) == size
        finally:
            os.close(fd)
        self.model += data

    def read(self) -> None:
        offset, size = self._span(max(1, len(self.model) + KIB))
        self._note("read", offset, size)
        self._same(os.pread(self._fd, size, offset), offset, size)

    def read_elsewhere(self) -> None:
        offset, size = self._span(max(1, len(self.model)))
        self._note("read through another descriptor", offset, size)
        fd = os.open(self.path, os.O_RDONLY)
        try:
            self._same(os.pread(fd, size, offset), offset, size)
        finally:
            os.close(fd)

    def truncate(self) -> None:
        size = self._rng.randrange(self.limit)
        self._note("truncate", size, 0)
        if self._rng.random() < 0.5:
            os.ftruncate(self._fd, size)
        else:
            os.truncate(self.path, size)
        if size < len(self.model):
            del self.model[size:]
        else:
            self.model.extend(bytes(size - len(self.model)))

    def map_write(self) -> None:
        if not self.model:
            return
        offset, size = self._span(len(self.model))
        size = min(size, len(self.model) - offset)
        self._note("mapped write", offset, size)
        data = self._rng.randbytes(size)
        with mmap.mmap(self._fd, len(self.model)) as mapped:
            mapped[offset : offset + size] = data
            if self._rng.random() < 0.5:
                mapped.flush()
        self._set(offset, data)

    def map_read(self) -> None:
        if not self.model:
            return
        offset, size = self._span(len(self.model))
        self._note("mapped read", offset, size)
        with mmap.mmap(self._fd, len(self.model), prot=mmap.PROT_READ) as mapped:
            self._same(mapped[offset : offset + size], offset, size)

    def sync(self) -> None:
        self._note("fsync", 0, 0)
        os.fsync(self._fd)

    def reopen(self) -> None:
        self._note("reopen", 0, 0)
        os.close(self._fd)
        self._fd = os.open(self.path, os.O_RDWR)
        self._check_size()

    def rename(self) -> None:
        self._renames += 1
        target = f"{self.name.partition('~')[0]}~{self._renames}"
        self._note(f"rename to {target}", 0, 0)
        self.path.rename(self.directory / target)
        self.name = target

    # -- checks ----------------------------------------------------------------------------------

    def check_store(self, fetch: Fetch) -> None:
        """The object is the model once it was synced."""
        self._note("fsync and compare with the store", 0, 0)
        os.fsync(self._fd)
        self._check_size()
        if fetch(self.name) != self.model:
            raise self._mismatch("the object in the store is not the file")

    def close(self) -> None:
        """Close the descriptor, which stores the file."""
        os.close(self._fd)

    def _check_size(self) -> None:
        if (size := os.fstat(self._fd).st_size) != len(self.model):
            raise self._mismatch(f"st_size is {size} instead of {len(self.model)}")

    def _same(self, found: bytes, offset: int, size: int) -> None:
        expected = self.model[offset : offset + size]
        if found != expected:
            wrong = [i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b]
            where = offset + wrong[0] if wrong else offset + min(len(found), len(expected))
            raise self._mismatch(
                f"{len(found)} bytes for {len(expected)}, {len(wrong)} wrong, first at {where}"
            )

    def _mismatch(self, text: str) -> MismatchError:
        return MismatchError(
            "\n".join((f"{self.name}: {text}; the last operations:", *self.history))
        )

    # -- inside ----------------------------------------------------------------------------------

    def _span(self, limit: int) -> tuple[int, int]:
        """Offset and size, small ones more often than large ones."""
        offset = self._rng.randrange(limit)
        largest = min(limit - offset, int(2 ** self._rng.uniform(0, 20)) + 1)
        return offset, self._rng.randint(1, max(1, largest))

    def _set(self, offset: int, data: bytes) -> None:
        if offset > len(self.model):
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + len(data)] = data

    def _note(self, what: str, offset: int, size: int) -> None:
        self.history.append(f"  {what} at {offset}, {size} bytes; size {len(self.model)}")


_OPERATIONS = {
    "write": 20,
    "read": 20,
    "read_elsewhere": 5,
    "truncate": 8,
    "map_write": 10,
    "map_read": 8,
    "append": 6,
    "write_only": 2,
    "write_in_order": 2,
    "sync": 3,
    "reopen": 5,
    "rename": 1,
}
"""How often each is chosen."""


def exercise(directory: Path, fetch: Fetch, steps: int, rng: random.Random) -> None:
    """Random operations on a small, a middling and a large file; the large one has parts."""
    files = [
        ExercisedFile(directory, "small", 256 * KIB, rng),
        ExercisedFile(directory, "middling", 3072 * KIB, rng),
        ExercisedFile(directory, "large", 24 * KIB * KIB, rng),
    ]
    for number in range(1, steps + 1):
        file = rng.choices(files, (60, 37, 3))[0]
        file.step()
        if number % CHECK_STEPS == 0:
            file.check_store(fetch)
    for file in files:
        file.close()
        if fetch(file.name) != file.model:
            raise MismatchError(f"{file.name}: the object in the store is not the closed file")
