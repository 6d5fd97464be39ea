"""What programs do on a mount, one piece of work for each request that the store knows."""

import contextlib
import os
from collections.abc import Iterator

from tests.support.places import MIB, Place, content_of

PART_WORK_BYTES = 17 * MIB
"""Enough for several parts."""
PARTS_UNDER_WAY = 3
COPIED_BYTES = 24 * MIB
"""Enough for clean parts on both sides of a change."""


class Work:
    """One thing a program does. Each may fail with OSError while the store is at fault.

    ``request`` is the store's operation that it cannot do without.
    """

    request: str

    def prepare(self, place: Place) -> None:
        """Before the fault."""

    def act(self, place: Place) -> None:
        """Under the fault. Wrong bytes are an AssertionError, whatever the store does."""
        raise NotImplementedError

    def act_again(self, place: Place) -> None:
        """After a failure, once the store is well: what the program tries next must succeed."""
        self.act(place)

    def verify(self, place: Place) -> None:
        """What the store and the mount hold at the end."""
        assert place.stored(place.name) == place.content
        assert place.path.read_bytes() == place.content


class ReadWhole(Work):
    request = "GetObject"
    size = 5 * MIB // 2

    def prepare(self, place: Place) -> None:
        place.content = content_of(self.size + place.rng.randrange(1000), place.rng.randrange(1000))
        place.put(place.name, place.content)

    def act(self, place: Place) -> None:
        assert place.path.read_bytes() == place.content


class ReadRange(ReadWhole):
    """From the middle, so that the store has to heed Range."""

    def act(self, place: Place) -> None:
        place.close()  # who was told that a file was replaced has to open it again
        fd = place.open(os.O_RDONLY)
        offset = MIB + place.rng.randrange(1000)
        read = b"".join(_read_all(fd, offset, MIB))
        assert read == place.content[offset : offset + MIB]


class Look(Work):
    """A zero-byte object may be a symlink, so its metadata has to be asked for."""

    request = "HeadObject"

    def prepare(self, place: Place) -> None:
        place.put(place.name, b"", {"mode": str(0o100640)})

    def act(self, place: Place) -> None:
        status = place.path.lstat()
        assert (status.st_size, status.st_mode) == (0, 0o100640)


class ListNames(Work):
    request = "ListObjects"
    names = ("a", "b", "c d", "ü")

    def prepare(self, place: Place) -> None:
        for name in self.names:
            place.put(f"{place.name}/{name}", b"x")

    def act(self, place: Place) -> None:
        assert sorted(path.name for path in place.path.iterdir()) == sorted(self.names)

    def verify(self, place: Place) -> None:
        self.act(place)


class WriteSmall(Work):
    request = "PutObject"
    size = 100_000

    def act(self, place: Place) -> None:
        place.content = content_of(self.size + place.rng.randrange(1000), place.rng.randrange(1000))
        fd = place.open(os.O_WRONLY | os.O_CREAT)
        _write_all(fd, place.content)
        os.fsync(fd)

    def act_again(self, place: Place) -> None:
        """The descriptor is still open and the data kept: the next fsync brings it to the store.

        Only what the failed write did not take is given again, as a program would. Parts that
        were under way may have failed meanwhile, which the next write tells.
        """
        if not place.fds:
            place.open(os.O_WRONLY | os.O_CREAT)
        fd = place.fds[-1]
        for _ in range(PARTS_UNDER_WAY):
            with contextlib.suppress(OSError):
                _write_all(fd, place.content[os.lseek(fd, 0, os.SEEK_CUR) :])
                break
        os.fsync(fd)


class WriteLarge(WriteSmall):
    request = "UploadPart"
    size = PART_WORK_BYTES


class BeginUpload(WriteLarge):
    request = "CreateMultipartUpload"


class FinishUpload(WriteLarge):
    request = "CompleteMultipartUpload"


class ChangeLarge(Work):
    """A small change in a large object: the rest is copied on the server."""

    request = "UploadPartCopy"

    def prepare(self, place: Place) -> None:
        place.content = content_of(COPIED_BYTES, place.rng.randrange(1000))
        place.put(place.name, place.content)

    def act(self, place: Place) -> None:
        fd = place.open(os.O_RDWR)
        offset = 12 * MIB + place.rng.randrange(1000)
        changed = bytearray(place.content)
        changed[offset : offset + 5000] = bytes(5000)
        place.content = bytes(changed)
        assert os.pwrite(fd, bytes(5000), offset) == 5000
        os.fsync(fd)

    def act_again(self, place: Place) -> None:
        os.fsync(place.fds[-1])


class Rename(Work):
    request = "CopyObject"

    def prepare(self, place: Place) -> None:
        place.content = content_of(200_000, place.rng.randrange(1000))
        place.put(f"{place.name}-old", place.content)

    def act(self, place: Place) -> None:
        old = place.mount / f"{place.name}-old"
        try:
            old.rename(place.path)
        except OSError:
            # "An interruption leaves the source complete or both, never neither."
            assert place.content in (place.stored(old.name), place.stored(place.name))
            raise

    def act_again(self, place: Place) -> None:
        old = place.mount / f"{place.name}-old"
        if old.exists():
            old.rename(place.path)

    def verify(self, place: Place) -> None:
        super().verify(place)
        assert place.stored(f"{place.name}-old") is None


class ChangeMode(Work):
    """A copy onto itself with new metadata."""

    request = "CopyObject"

    def prepare(self, place: Place) -> None:
        place.content = content_of(200_000, place.rng.randrange(1000))
        place.put(place.name, place.content)

    def act(self, place: Place) -> None:
        place.path.chmod(0o600)

    def verify(self, place: Place) -> None:
        super().verify(place)
        metadata = place.client.stat_object(place.bucket, place.name).metadata or {}
        assert metadata["x-amz-meta-mode"] == str(0o100600)


class Remove(Work):
    request = "DeleteObject"

    def prepare(self, place: Place) -> None:
        place.put(place.name, b"to be removed")

    def act(self, place: Place) -> None:
        place.path.unlink()

    def act_again(self, place: Place) -> None:
        place.path.unlink(missing_ok=True)

    def verify(self, place: Place) -> None:
        assert place.stored(place.name) is None
        assert not place.path.exists()


class GiveUp(Work):
    """A large file that is removed while it is written: its upload is to be forgotten."""

    request = "AbortMultipartUpload"

    def act(self, place: Place) -> None:
        fd = place.open(os.O_WRONLY | os.O_CREAT)
        _write_all(fd, content_of(PART_WORK_BYTES, 1))
        place.path.unlink()
        place.close()

    def verify(self, place: Place) -> None:
        assert place.stored(place.name) is None
        assert not place.path.exists()


WORKS: tuple[Work, ...] = (
    ReadWhole(),
    ReadRange(),
    Look(),
    ListNames(),
    WriteSmall(),
    BeginUpload(),
    WriteLarge(),
    FinishUpload(),
    ChangeLarge(),
    Rename(),
    ChangeMode(),
    Remove(),
    GiveUp(),
)


def _read_all(fd: int, offset: int, size: int) -> Iterator[bytes]:
    while size and (piece := os.pread(fd, size, offset)):
        yield piece
        offset += len(piece)
        size -= len(piece)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[:MIB]) :]
